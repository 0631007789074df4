"""What a request may ask for."""

import pytest

from rankmill.serving import limits
from rankmill.serving.request import RerankRequest
from rankmill.serving.request_error import Kind, RequestError
from rankmill.settings.gateway import GatewaySettings

SMALL = GatewaySettings(
    max_body_bytes=1000, max_documents=3, max_document_characters=10, max_query_characters=5, max_request_tokens=50
)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        (b"content-length", b"1000", None),
        (b"content-length", b"1001", Kind.TOO_LARGE),
        (b"content-length", b"9" * 15, Kind.TOO_LARGE),
        (b"content-length", b"9" * 5000, Kind.MALFORMED),
        (b"content-length", b"-1", Kind.MALFORMED),
        (b"content-length", b"many", Kind.MALFORMED),
        (b"content-length", "१".encode(), Kind.MALFORMED),
        (b"content-encoding", b"gzip", Kind.MALFORMED),
        (b"content-encoding", b"identity", None),
        (b"transfer-encoding", b"chunked", None),
    ],
)
def test_headers(name: bytes, value: bytes, kind: Kind | None) -> None:
    if kind is None:
        limits.check_headers([(name, value)], SMALL)
        return
    with pytest.raises(RequestError) as caught:
        limits.check_headers([(name, value)], SMALL)
    assert caught.value.kind is kind


@pytest.mark.parametrize(
    ("query", "documents", "kind", "message"),
    [
        ("12345", ["1234567890"] * 3, None, ""),
        ("", [""], None, ""),
        ("123456", ["1"], Kind.TOO_LONG, "query has a text of 6 characters; at most 5"),
        ("1", ["1", "12345678901"], Kind.TOO_LONG, "documents has a text of 11 characters; at most 10"),
        ("1", ["1"] * 4, Kind.INVALID, "documents has 4 texts; at most 3"),
    ],
)
def test_texts(query: str, documents: list[str], kind: Kind | None, message: str) -> None:
    request = RerankRequest(queries=(query,), documents=tuple(documents))
    if kind is None:
        limits.check_texts(request, SMALL)
        return
    with pytest.raises(RequestError, match=message) as caught:
        limits.check_texts(request, SMALL)
    assert caught.value.kind is kind


def test_an_instruction_is_no_longer_than_a_query() -> None:
    limits.check_texts(RerankRequest(queries=("1",), documents=("1",), instruction="12345"), SMALL)
    with pytest.raises(RequestError, match="instruction has a text of 6 characters; at most 5"):
        limits.check_texts(RerankRequest(queries=("1",), documents=("1",), instruction="123456"), SMALL)


def test_tokens() -> None:
    limits.check_tokens(50, SMALL)
    with pytest.raises(RequestError, match="51 tokens; at most 50"):
        limits.check_tokens(51, SMALL)


@pytest.mark.parametrize(("value", "seconds"), [(b"1", 0.001), (b"250", 0.25), (b"30000", 30.0), (b"9999999", 30.0)])
def test_clients_may_shorten_the_time(value: bytes, seconds: float) -> None:
    assert limits.time_allowed([(b"x-request-timeout-ms", value)], GatewaySettings()) == seconds


def test_without_the_header_the_servers_own_time_holds() -> None:
    assert limits.time_allowed([], GatewaySettings(timeout_seconds=7)) == 7


@pytest.mark.parametrize("value", [b"0", b"-5", b"1e3", b"soon", b"", b"1" * 5000])
def test_a_time_that_is_none_is_refused(value: bytes) -> None:
    with pytest.raises(RequestError, match="X-Request-Timeout-Ms"):
        limits.time_allowed([(b"x-request-timeout-ms", value)], SMALL)
