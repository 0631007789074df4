"""What is kept of a request when it has ended: metrics, a trace, a line in the log; never a text or a key."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, field

from opentelemetry import trace

from rankmill.serving import tracing
from rankmill.serving.dialects.dialect import Dialect
from rankmill.serving.exchange import Exchange
from rankmill.serving.logs import event
from rankmill.serving.metrics import OTHER, Metrics

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Seen:
    """What is known so far of a request, for its answer, metrics and logs; no text among it."""

    dialect: Dialect
    """Whose error body is sent."""
    route: str = OTHER
    spoken: str = OTHER
    """The dialect's name, once the request turned out to be in one."""
    model: str | None = None
    """Name of a configured one."""
    revision: str | None = None
    """Of that which scored."""
    reason: str | None = None
    documents: int = 0
    tokens: int = 0
    cached: int = 0
    """Pairs whose score was known."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By phase."""

    def add(self, phase: str, seconds: float) -> None:
        """Note the time of a phase that may come again."""
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds


class Recorder:
    """Writes it down.

    Args:
        metrics: of the process.
        pages: routes that rerank nothing; they are logged for debugging only, and not traced.
    """

    def __init__(self, metrics: Metrics, pages: Collection[str]) -> None:
        self._metrics = metrics
        self._pages = frozenset(pages)
        self.tracer = trace.get_tracer(tracing.TRACER)

    def note(self, exchange: Exchange, seen: Seen) -> None:
        """Metrics, trace and the log's line, when all is done."""
        model = seen.model or OTHER
        self._metrics.answered(seen.route, seen.spoken, model, exchange.status)
        if seen.reason is not None:
            self._metrics.refused(seen.reason)
        took_all = exchange.seconds
        if seen.route not in self._pages:
            facts = {"http.route": seen.route, "rankmill.dialect": seen.spoken, "rankmill.model": model}
            tracing.record(
                self.tracer,
                exchange.headers,
                seconds=took_all,
                phases=seen.seconds,
                status=exchange.status,
                attributes=facts | {"rankmill.documents": seen.documents, "rankmill.tokens": seen.tokens},
            )
        if exchange.status == 200 and seen.documents:
            seen.seconds["all"] = took_all
            for phase, took in seen.seconds.items():
                self._metrics.took(phase, model, took)
        event(
            log,
            logging.DEBUG if seen.route in self._pages else logging.INFO,
            "request",
            request_id=exchange.request_id,
            route=seen.route,
            dialect=seen.spoken,
            model=seen.model,
            status=exchange.status,
            reason=seen.reason,
            documents=seen.documents,
            tokens=seen.tokens,
            milliseconds={name: round(1000 * took, 2) for name, took in seen.seconds.items()},
        )
