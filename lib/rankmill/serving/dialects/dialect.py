"""What a dialect is."""

from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import BaseModel

from rankmill.serving.request import RerankRequest, RerankResult
from rankmill.serving.request_error import RequestError


class Dialect(Protocol):
    """One server's wire format; a stateless value (`WireFormat` is what implements it)."""

    @property
    def name(self) -> str:
        """In metrics and logs."""

    @property
    def request_model(self) -> type[BaseModel]:
        """The body it takes, for OpenAPI and for `parse`."""

    @property
    def response_model(self) -> type[BaseModel]:
        """The body of a result, for OpenAPI; a root model where the body is a list."""

    @property
    def msgpack(self) -> bool:
        """Whether bodies may be MessagePack too, see `rankmill.serving.dialects.msgpack`."""

    def parse(self, body: Any, path: Mapping[str, str]) -> RerankRequest:
        """Check a body and turn it into a request.

        Args:
            body: any JSON value, parsed strictly.
            path: parameters of the route, such as `model`.

        Raises:
            RequestError: INVALID or UNKNOWN_FIELD, with a sentence that names the field and never holds the
                request's text.
        """

    def render(self, body: Any, request: RerankRequest, result: RerankResult) -> Any:
        """The JSON value that the dialect's clients expect.

        Args:
            body: what the client sent and `parse` accepted, for what it wants back, such as its documents.
            request: what `parse` made of it.
            result: what became of it.
        """

    def render_error(self, error: RequestError) -> tuple[int, Any]:
        """HTTP status and JSON value that the dialect's clients expect of an error."""

    def render_headers(
        self, request: RerankRequest, result: RerankResult, seconds: Mapping[str, float]
    ) -> dict[str, str]:
        """Headers that only this dialect's clients look for, names in lower case.

        Args:
            request: what `parse` made of the body.
            result: what became of it.
            seconds: by phase, as `Seen.seconds` has them.
        """

    def about(self, body: Any) -> "Dialect":
        """The same dialect, for errors about what `parse` made of a body: they name its fields as the body does.

        Those of `parse` itself do so already.

        Args:
            body: that `parse` accepted.
        """
