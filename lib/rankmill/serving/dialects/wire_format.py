"""How a dialect is put together: a pydantic model in, pure functions, JSON out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from rankmill.serving.request import RerankRequest, RerankResult
from rankmill.serving.request_error import Kind, RequestError

MOST_FIELDS = 100
"""Of a body; no client sends a third of it."""

BodyT = TypeVar("BodyT", bound=BaseModel)


def called(**names: str) -> Callable[[Mapping[str, Any]], Mapping[str, str]]:
    """The same names whatever the body, for `WireFormat.names`."""
    return lambda _: names


def _nothing(*_: Any) -> dict[str, str]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WireFormat(Generic[BodyT]):
    """A `Dialect` made of a checked body and pure functions of it."""

    name: str
    request_model: type[BodyT]
    response_model: type[BaseModel]
    read: Callable[[BodyT, Mapping[str, str]], RerankRequest]
    """Turns a checked body and the route's parameters into a request."""
    write: Callable[[BodyT, RerankRequest, RerankResult], Any]
    """Makes the JSON value of the answer."""
    write_error: Callable[[RequestError], tuple[int, Any]]
    """Makes the status and the JSON value of an error."""
    write_headers: Callable[[RerankRequest, RerankResult, Mapping[str, float]], dict[str, str]] = _nothing
    """Makes the headers of the answer that are the dialect's own."""
    msgpack: bool = False
    names: Callable[[Mapping[str, Any]], Mapping[str, str]] = _nothing
    """What a checked body calls `query`, `documents` and `instruction`, where it is something else."""

    def parse(self, body: Any, path: Mapping[str, str]) -> RerankRequest:
        """See `Dialect.parse`."""
        return self.read(self._checked(body), path)

    def render(self, body: Any, request: RerankRequest, result: RerankResult) -> Any:
        """See `Dialect.render`."""
        # Checked a second time, in microseconds: the price of a seam without state.
        return self.write(self._checked(body), request, result)

    def render_error(self, error: RequestError) -> tuple[int, Any]:
        """See `Dialect.render_error`."""
        return self.write_error(error)

    def render_headers(
        self, request: RerankRequest, result: RerankResult, seconds: Mapping[str, float]
    ) -> dict[str, str]:
        """See `Dialect.render_headers`."""
        return self.write_headers(request, result, seconds)

    def about(self, body: Any) -> "WireFormat[BodyT]":
        """See `Dialect.about`."""
        names = self.names(body)

        def write_error(error: RequestError) -> tuple[int, Any]:
            name = names.get(error.field or "")
            return self.write_error(error if name is None else error.about(name))

        return replace(self, write_error=write_error)

    def _checked(self, body: Any) -> BodyT:
        return checked(self.request_model, body)


def checked(model: type[BodyT], body: Any) -> BodyT:
    """Read a body into a model.

    Raises:
        RequestError: its first problem, in a sentence without the request's text.
    """
    if isinstance(body, dict) and len(body) > MOST_FIELDS:
        # each unknown one may become an error of pydantic's
        raise RequestError(Kind.INVALID, f"The body has {len(body):,} fields; the most is {MOST_FIELDS}.")
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise _request_error(model, error) from None


_NO_OBJECT = frozenset({"model_type", "model_attributes_type", "dict_type"})
"""Problems of which pydantic's message names a class of ours."""


def _request_error(model: type[BaseModel], error: ValidationError) -> RequestError:
    """The first problem as a sentence without the request's text, which pydantic's own message quotes."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if not problem["loc"]:
        return RequestError(Kind.INVALID, "The body must be a JSON object.")
    if problem["type"] == "extra_forbidden":
        return _unknown_field(str(problem["loc"][-1]))
    name = _field(model, problem["loc"])
    if problem["type"] in _NO_OBJECT:
        return RequestError(Kind.INVALID, f"{name} must be an object.", field=name)
    if problem["type"] == "too_short":
        return RequestError(Kind.EMPTY, f"{name} is empty; it must hold at least one.", field=name)
    if problem["type"] == "missing":
        return RequestError(Kind.INVALID, f"{name} is missing.", field=name)
    rule = problem["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    return RequestError(Kind.INVALID, f"{name} {rule}.", field=name)


def _field(model: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """`documents[3].text`, of declared names and positions only: other names may be keys that the client made up."""
    declared = _declared_names(model)
    parts = [
        f"[{part}]" if isinstance(part, int) else f".{part}"
        for part in location
        if part in declared or isinstance(part, int)
    ]
    return "".join(parts).removeprefix(".") or "The body"


@cache
def _declared_names(model: type[BaseModel]) -> frozenset[str]:
    schema = model.model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return frozenset(name for part in parts for name in part.get("properties", ()))


FIELDS_OF_OTHERS = frozenset(
    {"top_k", "truncation", "input", "texts", "raw_scores", "return_text", "return_input", "instruction", "min_score"}
    | {"return_logits", "long_documents", "activation", "parameters", "truncate", "use_activation", "overlap_tokens"}
)
"""What clients send to a server that does not have it; safe to repeat, unlike a name that the client made up."""


def _unknown_field(name: str) -> RequestError:
    which = f"parameter '{name}'" if name in FIELDS_OF_OTHERS else "one of the parameters"
    return RequestError(Kind.UNKNOWN_FIELD, f"unknown field: {which} is not a valid field of this API.")
