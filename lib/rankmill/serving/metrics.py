"""What Prometheus can read about a gateway. Every label has few values, all known at the start, or is `other`."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from rankmill import __version__
from rankmill.serving.backend import ModelInfo, Scored
from rankmill.serving.online import Prepared

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER = "other"
"""A route or a model that there is not."""
PHASES = ("read", "retrieve", "prepare", "score", "render", "all")

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_COUNTS = (1, 5, 10, 25, 50, 100, 250, 500, 1000)


class Metrics:
    """The counters of one gateway process.

    Args:
        models: those configured; no other name becomes a label.
    """

    def __init__(self, models: Iterable[ModelInfo]) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "rankmill_requests",
            "Requests, by what they asked for and the class of the answer's status; gone: the client left",
            ("route", "dialect", "model", "status"),
            registry=registry,
        )
        self._refused = Counter(
            "rankmill_refused_requests", "Requests without a result, by reason", ("reason",), registry=registry
        )
        self._seconds = Histogram(
            "rankmill_request_seconds",
            "Time of a rerank request by phase: read (body), retrieve (of a search), prepare (parse, tokenise), score "
            "(queue, forward pass), render, all; with its model, the last one of a pipeline",
            ("phase", "model"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._documents = Histogram(
            "rankmill_request_documents", "Documents of a rerank request", buckets=_COUNTS, registry=registry
        )
        names = ("model",)
        self._tokens = Counter("rankmill_tokens", "Tokens of scored pairs", names, registry=registry)
        self._pairs = Counter("rankmill_pairs", "Pairs of scored requests", names, registry=registry)
        self._repeated = Counter(
            "rankmill_repeated_pairs", "Pairs that were equal to another of their request", names, registry=registry
        )
        self._cut = Counter(
            "rankmill_truncated_pairs", "Pairs whose query or document was cut", names, registry=registry
        )
        self._cached = Counter(
            "rankmill_cached_pairs", "Pairs whose logits the score cache knew", names, registry=registry
        )
        self._running = Gauge("rankmill_running_requests", "Rerank requests being worked on", registry=registry)
        self._queued = Gauge(
            "rankmill_queued_tokens", "Tokens handed to the scorers that have no logit yet", names, registry=registry
        )
        self._calls = Counter(
            "rankmill_forward_calls",
            "Calls of the scorer that answered requests of this gateway took; a shared one counts by its tokens",
            names,
            registry=registry,
        )
        self._forward_seconds = Counter("rankmill_forward_seconds", "Time of these calls", names, registry=registry)
        self._batch_tokens = Counter(
            "rankmill_batch_tokens",
            "Tokens of pairs that these calls computed, without padding",
            names,
            registry=registry,
        )
        self._padding = Counter(
            "rankmill_padding_tokens",
            "Tokens of padding that they computed as well; over batch tokens it is the padding waste",
            names,
            registry=registry,
        )
        self._lost = Counter(
            "rankmill_lost_pairs",
            "Pairs that a replica had when it died and another one then scored: forward passes made in vain",
            names,
            registry=registry,
        )
        about = Info("rankmill_model", "Models configured", names, registry=registry)
        for model in models:
            about.labels(model.name).info(
                {"revision": model.revision, "fingerprint": model.card.fingerprint, "version": __version__}
            )

    def text(self) -> bytes:
        """All of them, in Prometheus' text format. They are this gateway's alone: sums over gateways are right."""
        return generate_latest(self._registry)

    def answered(self, route: str, dialect: str, model: str, status: int | None) -> None:
        """Count a request.

        Args:
            route: its template, or `OTHER`.
            dialect: its name, or `OTHER`.
            model: the name of a configured one, or `OTHER`.
            status: None for a client that left.
        """
        self._requests.labels(route, dialect, model, "gone" if status is None else f"{status // 100}xx").inc()

    def refused(self, reason: str) -> None:
        """Count a request without a result; `reason` is the name of a `Kind`."""
        self._refused.labels(reason).inc()

    def took(self, phase: str, model: str, seconds: float) -> None:
        """Note the time of one of `PHASES`; `model` as for `answered`."""
        self._seconds.labels(phase, model).observe(seconds)

    def started(self) -> None:
        """Note that a rerank request is being worked on."""
        self._running.inc()

    def ended(self) -> None:
        """Note that it is not any more, whatever became of it."""
        self._running.dec()

    @contextmanager
    def queued(self, model: str, tokens: int) -> Iterator[None]:
        """Count tokens as waiting for the length of a `with` block."""
        waiting = self._queued.labels(model)
        waiting.inc(tokens)
        try:
            yield
        finally:
            waiting.dec(tokens)

    def scored(self, model: str, prepared: Prepared, scored: Scored) -> None:
        """Count the pairs of a request that got its scores."""
        count = len(prepared.rows)
        self._documents.observe(count)
        self._tokens.labels(model).inc(prepared.tokens)
        self._pairs.labels(model).inc(count)
        self._repeated.labels(model).inc(count - len(prepared.pairs))
        self._cut.labels(model).inc(int(prepared.pairs.truncated[prepared.rows].sum()))
        self._cached.labels(model).inc(scored.cached)
        work = scored.work
        self._calls.labels(model).inc(work.calls)
        self._forward_seconds.labels(model).inc(work.seconds)
        self._batch_tokens.labels(model).inc(work.tokens)
        self._padding.labels(model).inc(work.padding)
        self._lost.labels(model).inc(scored.lost)
