"""Traces of OpenTelemetry, for whoever configured it: `opentelemetry-instrument`, or Ray Serve's tracing exporter.

Where nobody did, the library's own tracer records nothing, and neither is anything else loaded or sent.
"""

import time
from collections.abc import Mapping, Sequence

from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer

TRACER = "rankmill.serving"

_CARRIERS = frozenset({b"traceparent", b"tracestate"})
_NS = 1_000_000_000


def record(
    tracer: Tracer,
    headers: Sequence[tuple[bytes, bytes]],
    *,
    seconds: float,
    phases: Mapping[str, float],
    status: int | None,
    attributes: Mapping[str, str | int],
) -> None:
    """Write down a request that has just ended: one span, and one inside it for each phase.

    Args:
        tracer: of OpenTelemetry.
        headers: the request's; a `traceparent` among them makes this a part of the client's trace, where no span of
            the caller's (Ray Serve's) is one already.
        seconds: that it took.
        phases: seconds of each, one after the other.
        status: of the answer; None where the client left.
        attributes: facts, without texts and keys.
    """
    parent = None  # the current span
    if not trace.get_current_span().get_span_context().is_valid:
        parent = extract({name.decode(): value.decode("latin-1") for name, value in headers if name in _CARRIERS})
    now = time.time_ns()
    start = now - int(seconds * _NS)
    span = tracer.start_span("rerank", parent, kind=SpanKind.SERVER, attributes=dict(attributes), start_time=start)
    if not span.is_recording():
        return
    inside = trace.set_span_in_context(span)
    for phase, took in phases.items():
        end = start + int(took * _NS)
        tracer.start_span(phase, inside, start_time=start).end(end)
        start = end
    if status is not None:
        span.set_attribute("http.response.status_code", status)
    if status is None or status >= 500:
        span.set_status(Status(StatusCode.ERROR))
    span.end(now)
