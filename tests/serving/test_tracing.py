"""What a collector of OpenTelemetry would be told of a request."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from rankmill.serving.tracing import record
from rankmill.settings.gateway import GatewaySettings
from tests.serving.live import Live, eventually, live, tiny

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Live]:
    with live(GatewaySettings(), tiny(tmp_path)) as running:
        yield running


def test_a_request_is_a_span_of_the_clients_trace_with_its_phases(server: Live) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    server.gateway._recorder.tracer = provider.get_tracer("test")
    server.ask("GET", "/healthz")
    body = {"query": "canary", "documents": ["canary", "b"]}
    assert server.post(body, headers={"traceparent": CLIENT}).status == 200

    def whole() -> list[ReadableSpan]:
        return [span for span in exporter.get_finished_spans() if span.name == "rerank"]

    eventually(lambda: len(whole()) == 1)
    (span,) = whole()
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" in CLIENT
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" in CLIENT
    attributes = dict(span.attributes or {})
    assert attributes["http.route"] == "/v1/rerank"
    assert attributes["http.response.status_code"] == 200
    assert attributes["rankmill.documents"] == 2
    assert "canary" not in span.to_json()

    inside = exporter.get_finished_spans()[:-1]
    assert [part.name for part in inside] == ["read", "prepare", "score", "render"]
    assert all(part.parent is not None and part.parent.span_id == span.context.span_id for part in inside)
    times = [time for part in inside for time in (part.start_time, part.end_time)]
    assert times == sorted(times, key=lambda time: time or 0)
    provider.shutdown()


def test_it_is_a_part_of_the_span_that_ray_serve_has_begun() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("Ray Serve's") as around:
        record(tracer, [(b"traceparent", CLIENT.encode())], seconds=1.0, phases={}, status=200, attributes={})
    inside, _ = exporter.get_finished_spans()
    assert inside.parent is not None
    assert inside.parent.span_id == around.get_span_context().span_id
    provider.shutdown()
