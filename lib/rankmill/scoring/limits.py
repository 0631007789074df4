"""How many tokens of a pair a model reads: what its files allow, and what was asked for."""

from dataclasses import dataclass
from typing import Any

from rankmill.errors import UsageError
from rankmill.scoring.options import ScorerOptions

# transformers writes 1e30 for "no limit"
_NO_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """How many tokens a pair may have."""

    max_length: int
    """Of the pair, special tokens included."""
    max_query_tokens: int
    """Of the query, whatever the document's length: every candidate of a query meets the same query."""
    max_document_tokens: int | None = None
    """Of the document, whether read at once or in chunks; None is no limit of its own."""
    chunks: bool = False
    """Whether a document that does not fit is read in overlapping chunks; else its end is cut off."""
    chunk_overlap: int | None = None
    """Tokens that neighbouring chunks share; None is a quarter of the document's room."""

    @property
    def identity(self) -> dict[str, int | str | None]:
        """What these limits add to a fingerprint beyond the two numbers; nothing where documents are simply cut."""
        found: dict[str, int | str | None] = {}
        if self.max_document_tokens is not None:
            found["max_document_tokens"] = self.max_document_tokens
        if self.chunks:
            found |= {"long_documents": "chunk", "chunk_overlap": self.chunk_overlap}
        return found


def choose_limits(
    model: str,
    options: ScorerOptions,
    *,
    positions: int,
    stated: list[Any],
    special_tokens: int,
    chunks: bool = False,
) -> Limits:
    """Settle the limits of a model.

    Left to itself, a pair is as long as the smallest of the model's own limits, and the query gets at most half of
    what the special tokens leave.

    Args:
        model: its name, for messages.
        options: what was asked for.
        positions: most tokens that its position embeddings can number.
        stated: what its other files say about the length; anything that is not a sensible number is passed over.
        special_tokens: tokens that its pair format takes.
        chunks: whether this kind of model can read a long document in chunks.

    Raises:
        UsageError: what was asked for is more than the model can read, or leaves no room for a document.
    """
    if options.long_documents == "chunk" and not chunks:
        raise UsageError(
            f"--long-documents chunk is for cross-encoders, and the model {model!r} is none; leave it out, and "
            "documents that do not fit are cut."
        )
    own = min([positions, *(int(limit) for limit in stated if is_limit(limit))])
    if options.max_length is not None and options.max_length > positions:
        raise UsageError(
            f"--max-length {options.max_length} is more than the {positions} tokens that the model {model!r} has "
            f"positions for; leave it out for the model's own limit of {own}."
        )
    max_length = own if options.max_length is None else options.max_length
    room = max_length - special_tokens
    if room < 2:
        raise UsageError(
            f"--max-length {max_length} leaves no room: the pair format of the model {model!r} takes "
            f"{special_tokens} tokens, query and document at least one each. Give at least "
            f"{special_tokens + 2}."
        )
    if options.max_query_tokens is not None and options.max_query_tokens >= room:
        raise UsageError(
            f"--max-query-tokens {options.max_query_tokens} leaves nothing for the document: of {max_length} tokens, "
            f"{special_tokens} are special tokens. Give at most {room - 1}."
        )
    max_query_tokens = options.max_query_tokens or room // 2
    overlap, least = options.chunk_overlap, room - max_query_tokens
    if overlap is not None and overlap >= least:
        raise UsageError(
            f"--chunk-overlap {overlap} leaves no step from chunk to chunk: next to a query of {max_query_tokens} "
            f"tokens, a chunk of a document has {least} of the {max_length} tokens. Give at most {least - 1}."
        )
    return Limits(max_length, max_query_tokens, options.max_document_tokens, options.long_documents == "chunk", overlap)


def is_limit(value: Any) -> bool:
    """Whether what a file states is a number of tokens, and not the absence of a limit."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value < _NO_LIMIT
