"""A model's pair format, read from its tokenizer's own post-processor."""

from dataclasses import dataclass

from tokenizers import Tokenizer

from rankmill.errors import ModelError

_PROBES = ("a", "the", "1", "0 a the.")


@dataclass(frozen=True, slots=True)
class PairTemplate:
    """The special tokens around a pair: `prefix query middle document suffix`."""

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    segments: bool
    """Whether document and suffix have token type 1 (BERT) or the whole pair type 0 (RoBERTa)."""

    @property
    def parts(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """`prefix`, `middle`, `suffix`."""
        return self.prefix, self.middle, self.suffix

    @property
    def special_tokens(self) -> int:
        """Tokens of a pair of empty texts."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)


def read_template(model: str, tokenizer: Tokenizer) -> PairTemplate:
    """Read the pair format off a processed pair.

    BERT: `[CLS] q [SEP] d [SEP]` with types 0 and 1; RoBERTa and XLM-R: `<s> q </s></s> d </s>`; and whatever else the
    file says, as long as query and document are whole and in this order.

    Args:
        model: the model's name, for messages.
        tokenizer: as the model's file has it, post-processor included.

    Raises:
        ModelError: there is no pair format, or it is not of this shape.
    """
    for probe in _PROBES:
        single = tokenizer.encode(probe, add_special_tokens=False)
        if len(single.ids) > 0:
            break
    else:
        raise ModelError(f"The tokenizer of the model {model!r} gives no tokens for the text {_PROBES[-1]!r}.")
    pair = tokenizer.encode(probe, probe)
    owners = pair.sequence_ids
    of_query = [i for i, owner in enumerate(owners) if owner == 0]
    of_text = [i for i, owner in enumerate(owners) if owner == 1]
    whole = len(of_query) == len(of_text) == len(single.ids)
    if not whole or of_query[-1] > of_text[0] or len(pair.ids) == 2 * len(single.ids):
        raise ModelError(
            f"The tokenizer of the model {model!r} has no format for pairs (query first, document second, special "
            "tokens around them): the post_processor in its tokenizer.json is missing or does something else."
        )
    ids, types = pair.ids, pair.type_ids
    start = of_text[0]
    segments = any(types)
    if segments and not (set(types[:start]) == {0} and set(types[start:]) == {1}):
        raise ModelError(
            f"The tokenizer of the model {model!r} numbers the token types of a pair as {types}; known are 0 for all, "
            "and 0 for the query with 1 for the document."
        )
    return PairTemplate(
        prefix=tuple(ids[: of_query[0]]),
        middle=tuple(ids[of_query[-1] + 1 : start]),
        suffix=tuple(ids[of_text[-1] + 1 :]),
        segments=segments,
    )
