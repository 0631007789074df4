"""Types of fields that several dialects share, and what is read from them.

A null means the same as a field that is not there: clients send every optional field as null. A list is given up at
its first bad element: a body may hold a million of them.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, JsonValue, Strict, Tag

from rankmill.serving.request_error import Kind, RequestError


def _boolean(value: Any) -> Any:
    """RAGFlow and others send booleans as strings."""
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


_FORMS: dict[type, str] = {str: "string", dict: "object", list: "list"}


def form(value: Any) -> str | None:
    """What tells the members of a union apart: `string`, `object` or `list`; None for anything else."""
    return _FORMS.get(type(value))


Text = Annotated[str, Strict()]
Flag = Annotated[
    bool, Strict(), BeforeValidator(_boolean, json_schema_input_type=bool | Literal["true", "false", "True", "False"])
]
"""true, false, or either of them as a string."""
Count = Annotated[int, Strict(), Field(ge=1)]
NonNegative = Annotated[int, Strict(), Field(ge=0)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
TextOrObject = Annotated[
    Annotated[Text, Tag("string")] | Annotated[dict[Text, JsonValue], Tag("object")],
    Discriminator(form, custom_error_type="form", custom_error_message="Input should be a string or an object"),
]
"""A text, or an object with a `text` and perhaps other fields."""
Texts = Annotated[list[Text], Field(min_length=1, fail_fast=True)]
Documents = Annotated[list[TextOrObject], Field(min_length=1, fail_fast=True)]
RankFields = Annotated[list[Text], Field(max_length=64, fail_fast=True)]
"""Names of fields of document objects; as many lookups for each document."""


class LenientBody(BaseModel):
    """A body whose unknown fields are passed over, as most servers do."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


def text_of(value: str | dict[str, Any], field: str, names: Sequence[str] = ("text",)) -> str:
    """The text that is scored.

    Args:
        value: a text, or an object.
        field: where it is from, for messages.
        names: of an object, the fields that are joined by a space, as the batch job joins title and text; those that
            are not there are passed over.

    Raises:
        RequestError: INVALID, the object has none of these fields, or one that is not a string.
    """
    if isinstance(value, str):
        return value
    values = [value[name] for name in names if value.get(name) is not None]
    if not values:
        # `names` may come from the request and so does not appear here
        wanted = "a text" if tuple(names) == ("text",) else "any of the fields to rank by"
        raise RequestError(Kind.INVALID, f"{field} is an object without {wanted}; only text is read.", field=field)
    if not all(isinstance(part, str) for part in values):
        raise RequestError(Kind.INVALID, f"{field} has a field to rank by that is not a string.", field=field)
    return " ".join(values)


def texts_of(
    values: Sequence[str | dict[str, Any]], field: str = "documents", names: Sequence[str] | None = None
) -> tuple[str, ...]:
    """`text_of` of every document.

    Raises:
        RequestError: see `text_of`.
    """
    return tuple(text_of(value, f"{field}[{index}]", names or ("text",)) for index, value in enumerate(values))


def as_object(value: str | dict[str, Any]) -> dict[str, Any]:
    """A document as the object that Cohere-like clients want back."""
    return {"text": value} if isinstance(value, str) else value


def as_objects(values: Sequence[str | dict[str, Any]]) -> list[dict[str, Any]]:
    """`as_object` of every document."""
    return [as_object(value) for value in values]
