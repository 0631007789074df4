"""What can go wrong with a request: one closed list of kinds, which every dialect turns into its own bodies."""

from enum import Enum

from rankmill.errors import RankmillError


class Kind(Enum):
    """Why a request got no result; the value is the HTTP status unless its dialect has another."""

    MALFORMED = 400
    """The body is no JSON, or no JSON that is accepted (NaN, duplicate keys, too deep)."""
    UNAUTHORIZED = 401
    UNKNOWN_MODEL = 404
    UNKNOWN_ROUTE = 4040
    """No such path: 404."""
    UNKNOWN_INDEX = 4041
    """Nothing to search is configured: 404."""
    METHOD = 405
    TOO_SLOW = 408
    """The body did not arrive in time."""
    TOO_LARGE = 413
    """The body has too many bytes."""
    INVALID = 422
    """JSON of the wrong shape, or a value out of bounds."""
    TOO_LONG = 4220
    """A pair has more tokens than the model reads, and the client did not want it cut: 422."""
    EMPTY = 4222
    """There are no documents: 422."""
    UNKNOWN_FIELD = 4221
    """A field that a dialect refuses because it does not have it: 422."""
    OVERLOADED = 429
    INTERNAL = 500
    UNAVAILABLE = 503
    DEADLINE = 504

    @property
    def status(self) -> int:
        """HTTP status."""
        return self.value if self.value < 1000 else self.value // 10


class RequestError(RankmillError):
    """A request that got no result.

    Args:
        kind: why.
        message: a sentence for the client; never holds any of the request's text.
        field: the name of the field at fault, where there is one.
        retry_after: seconds, for OVERLOADED and UNAVAILABLE.
        everywhere: whether another replica would say the same.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        field: str | None = None,
        retry_after: float | None = None,
        everywhere: bool = False,  # noqa: FBT001, FBT002 - of args
    ) -> None:
        super().__init__(kind, message, field, retry_after, everywhere)
        self.kind = kind
        self.message = message
        self.field = field
        self.retry_after = retry_after
        self.everywhere = everywhere

    def __str__(self) -> str:
        return self.message

    def about(self, field: str) -> "RequestError":
        """The same with another name of its field, also where that is the message's first word."""
        old = self.field or ""
        message = field + self.message.removeprefix(old) if old and self.message.startswith(old) else self.message
        return RequestError(self.kind, message, field, self.retry_after, self.everywhere)
