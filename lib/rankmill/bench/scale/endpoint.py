"""What Ray Serve and HAProxy take for an endpoint that does nothing, in the shape of ours: the least that ours can."""

import statistics
import time
from contextlib import ExitStack
from typing import Any

from rankmill.bench.scale.measured import Figure, Measured, Say, run, sayer, show
from rankmill.bench.serve.client import Client, Reply
from rankmill.bench.serve.servers import free_url
from rankmill.cluster import connect
from rankmill.cluster.haproxy import haproxy_ingress
from rankmill.settings.scale import EndpointSettings

_WARM_UP = 20
_PAUSE_SECONDS = 0.05
"""Between requests: about what scoring takes, in which all that waits for the next one falls asleep."""
_ANSWER_BYTES = 80
"""Per pair, as a result with its logit has them."""
_NOTE = (
    "One request at a time, medians. Score: from the gateway's call of another deployment to its answer. HTTP: all "
    "else, with HAProxy and the sender of the requests. Nothing is parsed, tokenised, queued or computed."
)


def measure(settings: EndpointSettings, say: Say) -> Measured:
    """Deploy it, ask it one thing at a time."""
    url = free_url()
    with ExitStack() as stack:
        stack.enter_context(haproxy_ingress())
        say("starting an empty endpoint")
        stack.enter_context(connect("local", num_cpus=4))
        _deploy(settings, int(url.rpartition(":")[2]))
        client = Client(url, "/", 1)
        stack.callback(client.close)
        body = b"0" * (settings.documents * settings.document_bytes)
        replies = [_asked(client, body) for _ in range(_WARM_UP + settings.requests)][_WARM_UP:]
        _shut_down()
    return run("endpoint", _figures(settings, replies), _NOTE)


def endpoint_command(settings: EndpointSettings) -> int:
    """`jobs/scale.py endpoint`."""
    return show(measure(settings, sayer(settings)), settings)


def _asked(client: Client, body: bytes) -> Reply:
    time.sleep(_PAUSE_SECONDS)
    return client.ask(body)


def _figures(settings: EndpointSettings, replies: list[Reply]) -> list[Figure]:
    rest = [reply.seconds - reply.phases["score"] for reply in replies]
    return [
        Figure("requests", settings.requests, ""),
        Figure("body", settings.documents * settings.document_bytes / 1000, "kB"),
        Figure("request", 1000 * statistics.median(reply.seconds for reply in replies), "ms"),
        Figure("of it score", 1000 * statistics.median(reply.phases["score"] for reply in replies), "ms"),
        Figure("of it HTTP", 1000 * statistics.median(rest), "ms"),
    ]


def _deploy(settings: EndpointSettings, port: int) -> None:
    from ray import serve  # noqa: PLC0415 - reads its settings when it is imported: after `connect`
    from ray.serve.config import HTTPOptions  # noqa: PLC0415

    from rankmill.bench.scale.empty_endpoint import EmptyGateway, EmptyScorer  # noqa: PLC0415

    quiet = {"enable_access_log": False, "log_level": "WARNING"}
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port), logging_config=quiet)
    # Any: the overloads of `deployment` know classes only
    scorer: Any = serve.deployment(EmptyScorer, name="scorer", max_ongoing_requests=100)
    gateway: Any = serve.deployment(serve.ingress()(EmptyGateway), name="gateway", max_ongoing_requests=100)
    application = gateway.bind(
        settings.documents * settings.tokens, settings.documents * _ANSWER_BYTES, scorer.bind(settings.documents)
    )
    serve.run(application, name="empty", route_prefix="/", logging_config=quiet)


def _shut_down() -> None:
    from ray import serve  # noqa: PLC0415 - as in `_deploy`

    serve.shutdown()  # type: ignore[no-untyped-call]
