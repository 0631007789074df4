"""What vLLM's two dialects share: how texts may be written, what may be asked for, and the errors."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Strict, Tag, field_validator

from rankmill.serving.dialects.fields import Flag, LenientBody, NonNegative, Text, form
from rankmill.serving.dialects.parts import status_of
from rankmill.serving.request import RerankRequest
from rankmill.serving.request_error import Kind, RequestError


class VllmPart(LenientBody):
    """A part of a text; images and video are not read."""

    type: Literal["text"]
    text: Text


class VllmContent(LenientBody):
    """A text in parts, which are joined by line breaks."""

    content: Annotated[list[VllmPart], Field(min_length=1, fail_fast=True)]


_String = Annotated[Text, Tag("string")]
_Object = Annotated[VllmContent, Tag("object")]
ScoreInput = Annotated[
    _String | _Object,
    Discriminator(form, custom_error_type="form", custom_error_message="Input should be a string or an object"),
]
ScoreInputs = Annotated[
    _String | _Object | Annotated[list[ScoreInput], Field(min_length=1, fail_fast=True), Tag("list")],
    Discriminator(form, custom_error_type="form", custom_error_message="Input should be a string, an object or a list"),
]
"""One, or a list of them."""


class VllmOptions(LenientBody):
    """Fields that scores and rankings share."""

    model: Text | None = None
    truncate_prompt_tokens: Annotated[int, Strict(), Field(ge=-1)] | None = Field(
        None, description="most tokens read of a pair, -1 for as many as the model reads; null refuses a longer pair"
    )
    truncation_side: Literal["left", "right"] | None = Field(
        None, description="with `left`, a pair that is too long is refused: only ends are cut"
    )
    max_tokens_per_query: NonNegative | None = Field(None, description="0 and null are no limit")
    max_tokens_per_doc: NonNegative | None = Field(None, description="0 and null are no limit")
    use_activation: Flag | None = Field(None, description="false gives logits; null is true")
    instruction: Text | None = None
    normalize: None = Field(None, description="removed, as in vLLM; use `use_activation`")

    @field_validator("normalize", mode="before")
    @classmethod
    def _removed(cls, value: Any) -> Any:
        if value is not None:
            raise ValueError("was removed; send use_activation instead")
        return value

    def request(self, queries: tuple[str, ...], documents: tuple[str, ...], top_n: int | None = None) -> RerankRequest:
        """What is asked for of these texts."""
        cut = self.truncate_prompt_tokens or None
        return RerankRequest(
            queries=queries,
            documents=documents,
            model=self.model,
            top_n=top_n,
            activation="raw" if self.use_activation is False else "model",
            truncate=cut is not None and self.truncation_side != "left",
            max_query_tokens=self.max_tokens_per_query or None,
            max_document_tokens=self.max_tokens_per_doc or None,
            max_pair_tokens=cut if cut is not None and cut > 0 else None,
            instruction=self.instruction,
        )


def text_of(value: ScoreInput) -> str:
    """The text that is scored."""
    return value if isinstance(value, str) else "\n".join(part.text for part in value.content)


def texts_of(value: ScoreInputs) -> tuple[str, ...]:
    """`text_of` of one, or of every one in a list."""
    return tuple(text_of(one) for one in (value if isinstance(value, list) else [value]))


_TYPES = {
    Kind.UNAUTHORIZED: "AuthenticationError",
    Kind.UNKNOWN_MODEL: "NotFoundError",
    Kind.OVERLOADED: "RateLimitError",
    Kind.INTERNAL: "InternalServerError",
    Kind.UNAVAILABLE: "ServiceUnavailableError",
    Kind.DEADLINE: "TimeoutError",
}


def write_error(error: RequestError) -> tuple[int, dict[str, Any]]:
    """vLLM's, which is OpenAI's."""
    status = status_of(error)
    param = "input_tokens" if error.kind is Kind.TOO_LONG else error.field
    kind = _TYPES.get(error.kind, "BadRequestError")
    return status, {"error": {"message": error.message, "type": kind, "param": param, "code": status}}
