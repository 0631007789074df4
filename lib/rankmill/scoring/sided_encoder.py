"""Two token sequences per pair, one of the query and one of the document, for models that read them apart."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rankmill.errors import ModelError, UsageError
from rankmill.scoring.limits import Limits
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.text_tokens import TextTokenizer
from rankmill.types import EncodedPairs

SIDES_VERSION = 1
"""Part of every fingerprint; raised when the same texts would give other token ids than before."""

_PROBES = ("a", "the", "1", "0 a the.")


@dataclass(frozen=True, slots=True)
class Side:
    """How the texts of one side become sequences: `prefix prompt text suffix`, maybe filled up."""

    prompt: str
    """Put before every text, and tokenised with it."""
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    room: int
    """Most tokens of prompt and text, at least 1; the suffix comes after a cut too."""
    filled_to: int = 0
    """Length that shorter sequences are filled up to, with `filler`."""
    filler: int = 0

    @property
    def identity(self) -> list[Any]:
        """What of it belongs into a fingerprint, as JSON."""
        return [self.prompt, list(self.prefix), list(self.suffix), self.room, self.filled_to, self.filler]


class SidedEncoder:
    """Turns pairs of texts into pairs of token sequences. Survives pickling.

    Args:
        tokenizer: the model's, for texts; may be shared.
        query: how queries are written.
        document: how documents are written.
    """

    def __init__(self, tokenizer: TextTokenizer, query: Side, document: Side) -> None:
        self._tokenizer = tokenizer
        self.query = query
        self.document = document

    def encode(self, queries: Sequence[str], texts: Sequence[str]) -> EncodedPairs:
        """Tokenise pairs `(queries[i], texts[i])`.

        Each distinct query and each distinct text is tokenised once per call, and of a long one only as much as can
        matter. Text that looks like a special token is text; a lone surrogate becomes U+FFFD.

        Args:
            queries: n strings; may be empty strings.
            texts: n strings; may be empty strings.

        Returns:
            n pairs in input order: the query's sequence, then the document's, which begins at `document_starts`.

        Raises:
            ValueError: the two sequences differ in length. This is a bug of the caller.
        """
        if len(queries) != len(texts):
            raise ValueError(f"{len(queries)} queries with {len(texts)} texts; pairs need as many of each.")
        of_queries = self._sequences(self.query, dict.fromkeys(queries))
        of_texts = self._sequences(self.document, dict.fromkeys(texts))
        sides = [(of_queries[query], of_texts[text]) for query, text in zip(queries, texts, strict=True)]
        starts = np.asarray([len(query.ids) for query, _ in sides], dtype=np.int32)
        offsets = np.zeros(len(sides) + 1, dtype=np.int64)
        np.cumsum([len(query.ids) + len(text.ids) for query, text in sides], out=offsets[1:])
        pieces = [sequence.ids for pair in sides for sequence in pair]
        return EncodedPairs(
            token_ids=np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int32),
            offsets=offsets,
            document_starts=starts,
            truncated=np.asarray([query.cut or text.cut for query, text in sides], dtype=np.bool_),
        )

    def _sequences(self, side: Side, texts: Iterable[str]) -> dict[str, "_Sequence"]:
        keys = list(texts)
        prefix, suffix = (np.asarray(part, dtype=np.int32) for part in (side.prefix, side.suffix))
        # one token more than is kept shows a cut
        tokens = self._tokenizer.tokens([side.prompt + text for text in keys], side.room + 1)
        found = {}
        for text, ids in zip(keys, (of_text.ids for of_text in tokens), strict=True):
            kept = ids[: side.room]
            missing = max(0, side.filled_to - len(prefix) - len(kept) - len(suffix))
            filling = np.full(missing, side.filler, dtype=np.int32)
            found[text] = _Sequence(np.concatenate([prefix, kept, suffix, filling]), len(kept) < len(ids))
        return found


@dataclass(frozen=True, slots=True)
class _Sequence:
    ids: NDArray[np.int32]
    cut: bool


def read_specials(model: str, tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The special tokens before and after a single text, read off a processed one.

    Args:
        model: the model's name, for messages.
        tokenizer: as the model's file has it, post-processor included.

    Raises:
        ModelError: the text does not come out whole.
    """
    for probe in _PROBES:
        bare: list[int] = tokenizer.encode(probe, add_special_tokens=False).ids
        if bare:
            break
    else:
        raise ModelError(f"The tokenizer of the model {model!r} gives no tokens for the text {_PROBES[-1]!r}.")
    encoding = tokenizer.encode(probe)
    own = [i for i, owner in enumerate(encoding.sequence_ids) if owner == 0]
    if [encoding.ids[i] for i in own] != bare or own != list(range(own[0], own[0] + len(own))):
        raise ModelError(
            f"The tokenizer of the model {model!r} does something else to a text than to put special tokens around it "
            "(post_processor in tokenizer.json), which this version cannot do."
        )
    return tuple(encoding.ids[: own[0]]), tuple(encoding.ids[own[-1] + 1 :])


def check_prompts(
    model: str, prompts: Sequence[str], tokenizer_json: Mapping[str, Any], tokenizer_config: Mapping[str, Any]
) -> None:
    """Refuse prompts with special tokens in them, and tokenizers that cut at the beginning.

    A prompt is tokenised with the text that follows it, and special tokens in that text are text.

    Raises:
        ModelError: naming the prompt.
    """
    specials = [str(token["content"]) for token in tokenizer_json.get("added_tokens", []) if token.get("special")]
    for prompt in prompts:
        found = next((special for special in specials if special in prompt), None)
        if found is not None:
            raise ModelError(
                f"The model {model!r} has the special token {found!r} in its prompt {prompt!r} "
                "(config_sentence_transformers.json), which this version would read as text."
            )
    if tokenizer_config.get("truncation_side", "right") != "right":
        raise ModelError(
            f"The tokenizer of the model {model!r} cuts long texts at their beginning (truncation_side in "
            "tokenizer_config.json); this version cuts at the end."
        )


def sided_limits(
    model: str, options: ScorerOptions, *, positions: int, query: int, document: int, query_specials: int, specials: int
) -> Limits:
    """Settle the limits of the two sides, which share nothing.

    Args:
        model: its name, for messages.
        options: what was asked for: `max_length` is about the document, `max_query_tokens` about the query.
        positions: most tokens of a sequence that the network can number.
        query: most tokens of a query's sequence, special tokens included, that the model is meant for.
        document: the same of a document's.
        query_specials: special tokens of a query's sequence.
        specials: special tokens of a document's.

    Returns:
        `max_length` with special tokens, `max_query_tokens` without; prompts count as text.

    Raises:
        ModelError: the model's own limit leaves a query no room.
        UsageError: what was asked for is more than the model can read, or leaves no room.
    """
    if options.long_documents == "chunk":
        raise UsageError(
            f"--long-documents chunk was given, but the model {model!r} reads query and document apart, which this "
            "version does not do in chunks: leave it out, or give a cross-encoder."
        )
    max_length = options.max_length or min(positions, document)
    if max_length > positions:
        raise UsageError(
            f"--max-length {max_length} is more than the {positions} tokens that the model {model!r} has positions "
            f"for; leave it out for the model's own limit of {min(positions, document)}."
        )
    if max_length <= specials:
        raise UsageError(
            f"--max-length {max_length} leaves no room: a document of the model {model!r} has {specials} special "
            f"tokens. Give at least {specials + 1}."
        )
    own = min(positions, query) - query_specials
    if own < 1:
        raise ModelError(
            f"The model {model!r} reads {own + query_specials} tokens of a query, special tokens included."
        )
    max_query_tokens = options.max_query_tokens or own
    if max_query_tokens > own:
        raise UsageError(
            f"--max-query-tokens {max_query_tokens} is more than the {own} tokens that the model {model!r} reads of a "
            "query; leave it out, or give less."
        )
    return Limits(max_length, max_query_tokens, options.max_document_tokens)
