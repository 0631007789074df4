"""The endpoint: an ASGI application that turns requests of every dialect into pairs, and logits into answers.

One request: key → limits → body → dialect → tokens (on a thread) → backend → ranking → the dialect's answer. Nothing
here computes on the event loop for long, and nothing waits without a limit.
"""

import asyncio
import logging
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from rankmill.retrieval.retriever import Retriever
from rankmill.serving import page, strict_json
from rankmill.serving.admission import Admission
from rankmill.serving.backend import Backend, ModelInfo
from rankmill.serving.dialects import msgpack
from rankmill.serving.dialects.routes import ROUTES, choose
from rankmill.serving.encoders import Encoders
from rankmill.serving.exchange import JSON, DisconnectedError, Exchange, Message, Receive, Send
from rankmill.serving.forward import Answered, Forward
from rankmill.serving.keys import Keys, refuse_keyless
from rankmill.serving.logs import event, where
from rankmill.serving.metrics import Metrics
from rankmill.serving.online import Prepared, find_model, finish, prepare
from rankmill.serving.openapi import describe
from rankmill.serving.pages import Pages
from rankmill.serving.readiness import Readiness
from rankmill.serving.recorder import Recorder, Seen
from rankmill.serving.request import RerankRequest
from rankmill.serving.request_error import Kind, RequestError
from rankmill.serving.routing import Match, RouteTable
from rankmill.serving.searching import Searching
from rankmill.serving.two_stages import TWO_STAGES, there
from rankmill.settings.gateway import GatewaySettings

log = logging.getLogger(__name__)

_STANDARD = ROUTES[0].dialects[-1]
_PROBES = ("/healthz", "/readyz", "/health", "/.well-known/ready")
_OPEN = frozenset({*_PROBES, "/info", "/meta", "/v1/cluster/auth", *page.PATHS})
"""Asked by machines that have no key, by clients before they send theirs, and by browsers."""
_RETRYABLE = (Kind.OVERLOADED, Kind.UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class _Job:
    """A request, understood and tokenised."""

    body: Any
    request: RerankRequest
    model: ModelInfo
    prepared: Prepared


class Gateway:
    """The ASGI application.

    Args:
        settings: limits, keys, deadlines.
        backend: what scores.
        retriever: what searches, for the routes that do; None is no index.

    Raises:
        ModelError: a model's tokeniser cannot be loaded.
        UsageError: the keys file cannot be read, or there are no keys where there must be.
    """

    def __init__(self, settings: GatewaySettings, backend: Backend, retriever: Retriever | None = None) -> None:
        self.settings = settings
        self.backend = backend
        self.retriever = retriever
        self.keys = Keys(settings.keys_file)
        refuse_keyless(settings, self.keys)
        self._models = backend.models()
        self.metrics = Metrics(self._models.values())
        self._encoders = Encoders(list(self._models.values()), settings.encoder_variants)
        self._threads = ThreadPoolExecutor(settings.tokenizer_threads, thread_name_prefix="prepare")
        self._admission = Admission(settings, self.metrics)
        self._forward = Forward(settings, backend, self._encoders, self._threads, self.metrics)
        self._searching = Searching(settings, self._forward)
        readiness = Readiness(backend, self._encoders)
        described = orjson.dumps(describe(ROUTES, searching=retriever is not None))
        self._pages = Pages(settings, backend, readiness, self.metrics, described).by_path()
        self._routes = RouteTable(ROUTES, self._pages, TWO_STAGES)
        self._recorder = Recorder(self.metrics, self._pages)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or take part in the server's start and end."""
        if scope["type"] == "http":
            await self._answer(Exchange(scope, receive, send))
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1003})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._threads.shutdown(wait=False, cancel_futures=True)
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, exchange: Exchange) -> None:
        seen = Seen(_STANDARD)
        try:
            await self._serve(exchange, seen)
        except DisconnectedError:
            seen.reason = "GONE"
        except RequestError as error:
            await self._refuse(exchange, seen, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer and the log the place
            event(
                log,
                logging.ERROR,
                "bug",
                request_id=exchange.request_id,
                error=type(error).__name__,
                where=where(error),
            )
            message = "Something went wrong here; the log has it, under the id of this request."
            await self._refuse(exchange, seen, RequestError(Kind.INTERNAL, message))
        finally:
            self._recorder.note(exchange, seen)

    async def _serve(self, exchange: Exchange, seen: Seen) -> None:
        match = self._routes.find(exchange.method, exchange.path)
        if match is not None:
            seen.route = match.template
            if match.route is not None:
                seen.dialect = match.route.dialects[-1]
        if seen.route not in _OPEN and not self.keys.accept(exchange.headers):
            raise RequestError(Kind.UNAUTHORIZED, "This needs an API key: Authorization: Bearer KEY.")
        if match is None:
            raise RequestError(Kind.UNKNOWN_ROUTE, "There is no such path here; /openapi.json lists those that are.")
        if exchange.method not in match.methods:
            raise RequestError(Kind.METHOD, f"This path answers to {' and '.join(match.methods)} only.")
        if match.template in TWO_STAGES:
            await self._search(exchange, match.template, seen)
        elif match.route is None:
            found = await self._pages[match.template](match.parameters)
            etag = found.headers.get("etag")
            status = 304 if etag and exchange.text(b"if-none-match") == etag else found.status
            await exchange.answer(status, b"" if status == 304 else found.body, found.content_type, dict(found.headers))
        else:
            await self._rerank(exchange, match, seen)

    async def _rerank(self, exchange: Exchange, match: Match, seen: Seen) -> None:
        job, answered = await self._admission.run(exchange, seen, partial(self._work, exchange, match, seen))
        before = exchange.seconds
        model, prepared, scored = answered.model, answered.prepared, answered.scored
        result = finish(job.request, model, prepared, scored, exchange.request_id, before)
        seen.revision = result.revision
        value = seen.dialect.render(job.body, job.request, result)
        in_msgpack = seen.dialect.msgpack and msgpack.wants_msgpack(exchange.text(b"accept"))
        answer = msgpack.dumps(value) if in_msgpack else orjson.dumps(value)
        seen.seconds["render"] = exchange.seconds - before
        self.metrics.scored(model.name, prepared, scored)
        headers = self._names(seen) | {"x-cached-pairs": str(scored.cached), "server-timing": _timing(seen)}
        headers |= seen.dialect.render_headers(job.request, result, seen.seconds)
        await exchange.answer(200, answer, msgpack.CONTENT_TYPE if in_msgpack else JSON, headers)

    async def _search(self, exchange: Exchange, path: str, seen: Seen) -> None:
        retriever = there(self.retriever)
        stages = TWO_STAGES[path]
        seen.spoken = stages.name
        work = partial(self._searching.answer, stages, retriever, exchange, seen)
        answer = await self._admission.run(exchange, seen, work)
        headers = self._names(seen) | {"x-cached-pairs": str(seen.cached), "server-timing": _timing(seen)}
        await exchange.answer(200, answer, JSON, headers)

    async def _work(
        self, exchange: Exchange, match: Match, seen: Seen, body: bytes, allowed: float
    ) -> tuple[_Job, Answered]:
        start = exchange.seconds
        job = await asyncio.get_running_loop().run_in_executor(
            self._threads, self._prepare, body, exchange.text(b"content-type"), match, seen
        )
        seen.seconds["prepare"] = exchange.seconds - start
        return job, await self._forward.score(job.request, job.model, job.prepared, exchange, seen, allowed)

    def _prepare(self, body: bytes, content_type: str, match: Match, seen: Seen) -> _Job:
        """All that takes the processor: parse, check, tokenise."""
        if seen.dialect.msgpack and msgpack.is_msgpack(content_type):
            value = msgpack.loads(body)
            strict_json.refuse_deep(value)
        else:
            value = strict_json.parse(body)
        seen.dialect = choose(match.template, value)
        seen.spoken = seen.dialect.name
        request = seen.dialect.parse(value, match.parameters)
        seen.dialect = seen.dialect.about(value)
        model = find_model(self._models, request.model)
        seen.model = model.name
        seen.documents = len(request.documents)
        prepared = prepare(request, model, self._encoders, self.settings)
        seen.tokens = prepared.tokens
        return _Job(value, request, model, prepared)

    async def _refuse(self, exchange: Exchange, seen: Seen, error: RequestError) -> None:
        seen.reason = error.kind.name
        if exchange.status is not None:
            return  # the answer was on its way already
        status, body = seen.dialect.render_error(error)
        headers = self._names(seen)
        if error.kind in _RETRYABLE:
            headers["retry-after"] = str(max(1, math.ceil(error.retry_after or 1)))
        elif error.kind is Kind.UNAUTHORIZED:
            headers["www-authenticate"] = "Bearer"
        elif error.kind is Kind.METHOD and (match := self._routes.find("", exchange.path)):
            headers["allow"] = ", ".join(match.methods)
        await exchange.answer(status, orjson.dumps(body), JSON, headers)

    def _names(self, seen: Seen) -> dict[str, str]:
        """Headers that say which model it was, once that is known."""
        if seen.model is None:
            return {}
        return {"x-model": seen.model, "x-model-revision": seen.revision or self._models[seen.model].revision}


def _timing(seen: Seen) -> str:
    """The value of the header Server-Timing."""
    return ", ".join(f"{name};dur={1000 * took:.2f}" for name, took in seen.seconds.items())
