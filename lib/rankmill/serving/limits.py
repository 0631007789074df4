"""What a request may ask for: pure checks, each of which names the limit and never repeats the request.

Messages begin with the field at fault, such as `query` or `documents`, for dialects that call it something else.
"""

from collections.abc import Iterable

from rankmill.serving.request import RerankRequest
from rankmill.serving.request_error import Kind, RequestError
from rankmill.settings.gateway import GatewaySettings

TIMEOUT_HEADER = b"x-request-timeout-ms"
_LONGEST_NUMBER = 15


def check_headers(headers: Iterable[tuple[bytes, bytes]], settings: GatewaySettings) -> None:
    """Refuse a body by what is said about it, before any of it is read.

    Args:
        headers: names in lower case.
        settings: the limits.

    Raises:
        RequestError: TOO_LARGE, or MALFORMED for a compressed body (how large it would become, nobody knows).
    """
    for name, value in headers:
        if name == b"content-length":
            length = _whole(value)
            if length is None:
                raise RequestError(Kind.MALFORMED, "The header Content-Length is no number of bytes.")
            check_bytes(length, settings)
        elif name == b"content-encoding" and value.strip().lower() not in {b"", b"identity"}:
            raise RequestError(Kind.MALFORMED, "The body has a Content-Encoding; send it as it is, uncompressed.")


def check_bytes(count: int, settings: GatewaySettings) -> None:
    """Refuse a body of `count` bytes, said or read so far.

    Raises:
        RequestError: TOO_LARGE.
    """
    if count > settings.max_body_bytes:
        raise RequestError(Kind.TOO_LARGE, f"The body has more than {settings.max_body_bytes:,} bytes.")


def check_texts(request: RerankRequest, settings: GatewaySettings) -> None:
    """Refuse too many documents, or too long ones.

    Too long is refused, not cut: a text of many times what a model reads is a mistake of the client's more often than a
    wish, and `truncated` could not tell the one from the other.

    Raises:
        RequestError: INVALID (too many) or TOO_LONG.
    """
    count = len(request.documents)
    if count > settings.max_documents:
        raise _invalid("documents", f"documents has {count:,} texts; at most {settings.max_documents:,} are accepted.")
    for field, texts, most in (
        ("query", request.queries, settings.max_query_characters),
        ("documents", request.documents, settings.max_document_characters),
        ("instruction", (request.instruction or "",), settings.max_query_characters),
    ):
        longest = max(map(len, texts), default=0)
        if longest > most:
            raise RequestError(
                Kind.TOO_LONG, f"{field} has a text of {longest:,} characters; at most {most:,} are accepted.", field
            )


def check_tokens(tokens: int, settings: GatewaySettings) -> None:
    """Refuse a request whose pairs have too many tokens together.

    Raises:
        RequestError: INVALID.
    """
    if tokens > settings.max_request_tokens:
        raise _invalid(
            "documents",
            f"All pairs together have {tokens:,} tokens; at most {settings.max_request_tokens:,} are accepted in one "
            "request. Send fewer documents, or lower the tokens read of each.",
        )


def time_allowed(headers: Iterable[tuple[bytes, bytes]], settings: GatewaySettings) -> float:
    """Seconds that a request may take: what the client asks for, as far as the server allows it.

    Raises:
        RequestError: INVALID, for a header that is no positive number of milliseconds.
    """
    for name, value in headers:
        if name == TIMEOUT_HEADER:
            milliseconds = _whole(value)
            if not milliseconds:
                raise RequestError(Kind.INVALID, "The header X-Request-Timeout-Ms must be a whole number from 1 on.")
            return min(milliseconds / 1000, settings.timeout_seconds)
    return settings.timeout_seconds


def _whole(value: bytes) -> int | None:
    text = value.strip()
    return int(text) if text.isdigit() and len(text) <= _LONGEST_NUMBER else None


def _invalid(field: str, message: str) -> RequestError:
    return RequestError(Kind.INVALID, message, field)
