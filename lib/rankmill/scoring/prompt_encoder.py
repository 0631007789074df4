"""From texts to the token ids of a prompt, with no torch in sight.

Where nothing is cut, the ids are those of the reference, which tokenises whole strings (`prompts.py`): a query is
tokenised together with what surrounds it, once per distinct query, a document with what stands before it, once per
distinct document. Where something is cut, the query is cut first, to a fixed limit, and after that only the document
gives way; what follows the document is never lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rankmill.scoring.limits import Limits
from rankmill.scoring.prompts import Prompt
from rankmill.scoring.text_tokens import TextTokenizer, readable
from rankmill.types import EncodedPairs

PROMPT_ASSEMBLY_VERSION = 1
"""Part of every fingerprint; raised when the same texts and prompt would give other token ids than before."""

Ids = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class PromptParts:
    """A prompt in one tokenizer's tokens."""

    opening: tuple[int, ...]
    lead: str
    """Before the query, the instruction included."""
    lead_tokens: int
    """Of `lead`, without the blank that becomes part of the query's first token."""
    after_query: str
    after_query_ids: tuple[int, ...]
    middle: tuple[int, ...]
    before_document: str
    document_lead_tokens: int
    """Of `before_document`, without the blank that becomes part of the document's first token."""
    closing: tuple[int, ...]

    @property
    def special_tokens(self) -> int:
        """Tokens of the prompt alone: with a query and a document of no tokens."""
        fixed = (self.opening, self.after_query_ids, self.middle, self.closing)
        return sum(map(len, fixed)) + self.lead_tokens + self.document_lead_tokens


def tokenize_prompt(prompt: Prompt, instruction: str | None, special: Tokenizer, text: Tokenizer) -> PromptParts:
    """Tokenise what is the same in all pairs.

    Args:
        prompt: the prompt.
        instruction: what replaces its default instruction, if anything.
        special: the model's tokenizer, which knows its special tokens: for the fixed strings.
        text: the same, reading special tokens as text: for strings that hold or touch what people wrote.
    """

    def fixed(strings: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(i for string in strings for i in special.encode(string, add_special_tokens=False).ids)

    def plain(string: str) -> tuple[int, ...]:
        return tuple(text.encode(string, add_special_tokens=False).ids)

    lead = readable(prompt.lead(instruction))
    return PromptParts(
        opening=fixed(prompt.opening),
        lead=lead,
        lead_tokens=len(plain(lead.rstrip(" "))),
        after_query=prompt.after_query,
        after_query_ids=plain(prompt.after_query),
        middle=fixed(prompt.middle),
        before_document=prompt.before_document,
        document_lead_tokens=len(plain(prompt.before_document.rstrip(" "))),
        closing=fixed(prompt.closing),
    )


@dataclass(frozen=True, slots=True)
class _Query:
    """A query with what surrounds it."""

    ids: Ids
    cut: bool


class PromptEncoder:
    """Turns pairs of texts into the token ids of a prompt. Survives pickling.

    Args:
        tokenizer: the model's, for texts; may be shared.
        parts: the prompt.
        limits: with room for the prompt, the query and at least one token of a document.
    """

    def __init__(self, tokenizer: TextTokenizer, parts: PromptParts, limits: Limits) -> None:
        self._tokenizer = tokenizer
        self.parts = parts
        self.limits = limits

    def encode(self, queries: Sequence[str], texts: Sequence[str]) -> EncodedPairs:
        """Tokenise pairs `(queries[i], texts[i])`.

        Each distinct string is tokenised once per call (a query twice where the prompt goes on in its string). Text
        that looks like a special token is text. A lone surrogate, which UTF-8 cannot hold, becomes U+FFFD.

        Args:
            queries: n strings; may be empty strings.
            texts: n strings; may be empty strings.

        Returns:
            n pairs in input order.

        Raises:
            ValueError: the two sequences differ in length. This is a bug of the caller.
        """
        if len(queries) != len(texts):
            raise ValueError(f"{len(queries)} queries with {len(texts)} texts; pairs need as many of each.")
        opening, middle, closing = (
            np.asarray(part, dtype=np.int32) for part in (self.parts.opening, self.parts.middle, self.parts.closing)
        )
        asked, documents = self._queries(queries), self._documents(texts)
        fixed = len(opening) + len(middle) + len(closing)
        most = self.limits.max_document_tokens
        pieces: list[Ids] = []
        lengths = np.zeros(len(queries), dtype=np.int64)
        starts = np.zeros(len(queries), dtype=np.int32)
        truncated = np.zeros(len(queries), dtype=np.bool_)
        for i, (query, text) in enumerate(zip(queries, texts, strict=True)):
            left, document = asked[query], documents[text]
            room = self.limits.max_length - fixed - len(left.ids)
            kept = document[: room if most is None else min(room, most + self.parts.document_lead_tokens)]
            pieces += (opening, left.ids, middle, kept, closing)
            lengths[i] = fixed + len(left.ids) + len(kept)
            starts[i] = len(opening) + len(left.ids) + len(middle)
            truncated[i] = left.cut or len(kept) < len(document)
        offsets = np.zeros(len(queries) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        token_ids = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int32)
        return EncodedPairs(token_ids, offsets, starts, truncated)

    def _queries(self, queries: Sequence[str]) -> Mapping[str, _Query]:
        """Each distinct query with what surrounds it, cut where it is too long."""
        distinct = list(dict.fromkeys(queries))
        after = np.asarray(self.parts.after_query_ids, dtype=np.int32)
        most = self.parts.lead_tokens + self.limits.max_query_tokens
        begun = self._encode([self.parts.lead + query for query in distinct])
        whole = self._encode([self.parts.lead + query + self.parts.after_query for query in distinct])
        found = {}
        for query, alone, joined in zip(distinct, begun, whole, strict=True):
            # merges across the border make the joined string shorter, if anything; it must not be longer
            fits = len(alone) <= most and len(joined) <= most + len(after)
            ids = joined if fits else np.concatenate([alone[:most], after])
            found[query] = _Query(ids, cut=len(alone) > most)
        return found

    def _documents(self, texts: Sequence[str]) -> Mapping[str, Ids]:
        """Each distinct document with what stands before it: one token more than could be used, to see a cut."""
        distinct = list(dict.fromkeys(texts))
        ids = self._encode([self.parts.before_document + text for text in distinct])
        return dict(zip(distinct, ids, strict=True))

    def _encode(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids per text, without special tokens: one more than could ever be used, enough to see a cut."""
        return [tokens.ids for tokens in self._tokenizer.tokens(texts, self.limits.max_length + 1)]
