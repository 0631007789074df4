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


def choose_limits(
    model: str,
    options: ScorerOptions,
    *,
    positions: int,
    stated: list[Any],
    special_tokens: int,
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

    Raises:
        UsageError: what was asked for is more than the model can read, or leaves no room for a document.
    """
    own = min([positions, *(int(limit) for limit in stated if _is_limit(limit))])
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
    return Limits(max_length, options.max_query_tokens or room // 2)


def _is_limit(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 1 <= value < _NO_LIMIT
