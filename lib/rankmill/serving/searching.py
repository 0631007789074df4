"""The gateway's routes that search: retrieval behind `Retriever`, reranking by the gateway's own models."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from rankmill.retrieval.retriever import Retriever
from rankmill.serving import limits, strict_json
from rankmill.serving.exchange import Exchange
from rankmill.serving.forward import Forward
from rankmill.serving.online import find_model, finish
from rankmill.serving.pipelines import Around
from rankmill.serving.recorder import Seen
from rankmill.serving.request import RerankRequest
from rankmill.serving.search import Rerank, Reranked
from rankmill.serving.two_stages import TwoStages
from rankmill.settings.gateway import GatewaySettings


@dataclass(frozen=True, slots=True)
class Searching:
    """Answers what is sent to `TWO_STAGES`."""

    settings: GatewaySettings
    forward: Forward
    """Scores, and has threads for what takes the processor."""

    async def answer(
        self, stages: TwoStages, retriever: Retriever, exchange: Exchange, seen: Seen, body: bytes, allowed: float
    ) -> bytes:
        """Run the stages.

        Args:
            stages: of the route.
            retriever: the first one.
            exchange: the request; its body was read.
            seen: where model, phases and counts are noted.
            body: as it came.
            allowed: seconds for the request, from its start.

        Returns:
            JSON.

        Raises:
            RequestError: as `strict_json.parse`, `search.search` and `pipelines.execute`.
        """
        loop = asyncio.get_running_loop()
        around = Around(
            retriever.within(allowed - exchange.seconds),
            partial(self._reranker, exchange, seen, allowed),
            self.settings,
        )
        asked = await loop.run_in_executor(self.forward.threads, lambda: stages.parse(strict_json.parse(body), around))
        start = exchange.seconds
        seen.seconds["retrieve"] = 0.0  # phases are kept in the order in which they come
        answer = await stages.run(asked, around, exchange.request_id)
        reranking = seen.seconds.get("prepare", 0.0) + seen.seconds.get("score", 0.0)
        seen.seconds["retrieve"] = exchange.seconds - start - reranking
        start = exchange.seconds
        rendered = await loop.run_in_executor(self.forward.threads, answer.model_dump_json)
        seen.seconds["render"] = exchange.seconds - start
        return rendered.encode()

    def _reranker(self, exchange: Exchange, seen: Seen, allowed: float, name: str | None) -> Rerank:
        model = find_model(self.forward.backend.models(), name)
        seen.model = model.name

        async def rerank(query: str, documents: Sequence[str]) -> Reranked:
            if not documents:
                nothing = np.zeros(0, np.float32)
                return Reranked(nothing, nothing, nothing.astype(np.bool_), name or model.name, model.revision)
            request = RerankRequest(queries=(query,), documents=tuple(documents), model=name)
            start = exchange.seconds
            prepared = await self.forward.tokens(request, model)
            seen.add("prepare", exchange.seconds - start)
            limits.check_tokens(seen.tokens + prepared.tokens, self.settings)  # of all stages
            found = await self.forward.score(request, model, prepared, exchange, seen, allowed)
            result = finish(request, found.model, found.prepared, found.scored, exchange.request_id, exchange.seconds)
            seen.revision = result.revision
            seen.documents += len(documents)
            seen.tokens += found.prepared.tokens
            seen.cached += found.scored.cached
            self.forward.metrics.scored(model.name, found.prepared, found.scored)
            return Reranked(result.logits, result.scores, result.truncated, result.model, result.revision)

        return rerank
