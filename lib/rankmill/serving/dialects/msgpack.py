"""Bodies in MessagePack, for dialects that speak it: plain maps, arrays, strings, numbers, booleans and nil."""

import math
from collections.abc import Sequence
from typing import Any

import msgpack

from rankmill.serving.request_error import Kind, RequestError

CONTENT_TYPE = "application/msgpack"
_CONTENT_TYPES = frozenset({CONTENT_TYPE, "application/x-msgpack", "application/vnd.msgpack"})


def is_msgpack(content_type: str | None) -> bool:
    """Whether a `Content-Type` says MessagePack."""
    return _essence(content_type or "") in _CONTENT_TYPES


def wants_msgpack(accept: str | None) -> bool:
    """Whether an answer is to be MessagePack: unless `Accept` names JSON and not MessagePack too, as SIE decides."""
    kinds = {_essence(part) for part in (accept or "").split(",")}
    return bool(kinds & _CONTENT_TYPES) or "application/json" not in kinds


def loads(body: bytes) -> Any:
    """Read a body.

    Raises:
        RequestError: MALFORMED, it is not MessagePack, or has what JSON does not: keys that are no strings, the same
            key twice, bytes, extension types, NaN or infinity.
    """
    try:
        value = msgpack.unpackb(body, raw=False, strict_map_key=True, object_pairs_hook=_map)
    except RequestError:
        raise
    # the extension module raises whatever fits: its own classes, ValueError, UnicodeDecodeError, RecursionError
    except Exception as error:
        raise RequestError(Kind.MALFORMED, "The body is not MessagePack.") from error
    _refuse_what_json_has_not(value)
    return value


def dumps(value: Any) -> bytes:
    """Write an answer."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def _essence(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _map(pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RequestError(Kind.MALFORMED, "The body has a map with the same key twice; send each once.")
    return found


def _refuse_what_json_has_not(value: Any) -> None:
    rest = [value]
    while rest:
        match rest.pop():
            case dict() as held:
                if not all(isinstance(key, str) for key in held):
                    raise RequestError(Kind.MALFORMED, "The body has a map with keys that are no strings.")
                rest.extend(held.values())
            case list() as held:
                rest.extend(held)
            case float() as number if not math.isfinite(number):
                raise RequestError(Kind.MALFORMED, "The body has a number that is not finite; send finite ones.")
            case None | bool() | int() | float() | str():
                pass
            case _:
                raise RequestError(Kind.MALFORMED, "The body has bytes or an extension type; send what JSON has too.")
