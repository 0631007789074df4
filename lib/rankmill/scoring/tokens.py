"""From texts to token ids: our own pair assembly, the same for batch and online, with no torch in sight.

Query and document are tokenised apart from each other and joined by the model's own pair format. That gives what
transformers' `tokenizer(query, text)` gives wherever nothing has to be cut (tested for every family), and differs
where something has to: transformers' `longest_first` shortens the query for a long document, here the query is cut
first, to a fixed limit, and after that only the document gives way.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rankmill.scoring.chunks import chunk_starts
from rankmill.scoring.limits import Limits
from rankmill.scoring.prefix import head, may_cut
from rankmill.scoring.template import PairTemplate
from rankmill.types import Chunks, EncodedPairs

ASSEMBLY_VERSION = 1
"""Part of every fingerprint; raised when the same texts would give other token ids than before."""

# English has 4 to 5 characters per token; with 8, nearly every long text needs one round
_CHARACTERS_PER_TOKEN = 8
# An encoding holds some 100 bytes per token until its ids are taken; a shard of 8,192 pairs at once would be 250 MB
_TEXTS_AT_A_TIME = 256
_CHARACTERS_AT_A_TIME = 4_000_000
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class _Tokens:
    """A text's tokens, without special tokens; maybe only its first."""

    ids: NDArray[np.int32]
    """Shape (tokens,)."""
    spans: NDArray[np.int32]
    """Shape (tokens, 2): the characters that each came from; shape (0, 2) where nobody asked."""

    def span(self, part: slice) -> tuple[int, int]:
        """First character of a non-empty run of tokens, and the one after its last."""
        where = self.spans[part]
        return int(where[:, 0].min()), int(where[:, 1].max())


_NO_SPANS = np.zeros((0, 2), dtype=np.int32)


class PairEncoder:
    """Turns pairs of texts into token ids. Survives pickling.

    Args:
        tokenizer_json: `tokenizer_files.reading_specials_as_text`, as JSON text.
        template: the model's pair format.
        limits: with room for the template, the query and at least one token of a document.
    """

    def __init__(self, tokenizer_json: str, template: PairTemplate, limits: Limits) -> None:
        self._tokenizer_json = tokenizer_json
        self._tokenizer: Tokenizer = Tokenizer.from_str(tokenizer_json)
        self._tokenizer.encode_special_tokens = True  # not part of the JSON, hence __reduce__
        self._may_cut = may_cut(json.loads(tokenizer_json))
        self.template = template
        self.limits = limits
        self._room = limits.max_length - template.special_tokens

    def __reduce__(self) -> tuple[type["PairEncoder"], tuple[str, PairTemplate, Limits]]:
        return PairEncoder, (self._tokenizer_json, self.template, self.limits)

    def encode(self, queries: Sequence[str], texts: Sequence[str]) -> EncodedPairs:
        """Tokenise pairs `(queries[i], texts[i])`.

        Each distinct string is tokenised once per call, and of a long one only as much as can matter; documents that
        are read in chunks once more, as a whole. Text that looks like a special token is text. NUL is passed to the
        tokenizer like any character; a lone surrogate, which UTF-8 cannot hold, becomes U+FFFD.

        Args:
            queries: n strings; may be empty strings.
            texts: n strings; may be empty strings.

        Returns:
            n pairs in input order. Characters of chunks are counted with surrogate pairs joined.

        Raises:
            ValueError: the two sequences differ in length. This is a bug of the caller.
        """
        if len(queries) != len(texts):
            raise ValueError(f"{len(queries)} queries with {len(texts)} texts; pairs need as many of each.")
        heads = self._tokenize(dict.fromkeys([*queries, *texts]), self._room + 1)  # enough to see a cut
        whole = self._whole_documents(queries, texts, heads) if self.limits.chunks else {}
        template, most = self.template, self.limits.max_document_tokens
        prefix, middle, suffix = (np.asarray(part, dtype=np.int32) for part in template.parts)
        pieces: list[NDArray[np.int32]] = []
        counts = np.ones(len(queries), dtype=np.int32)
        lengths: list[int] = []
        spans: list[tuple[int, int]] = []
        starts = np.zeros(len(queries), dtype=np.int32)
        truncated = np.zeros(len(queries), dtype=np.bool_)
        for i, (query, text) in enumerate(zip(queries, texts, strict=True)):
            query_ids = heads[query].ids
            kept_query = query_ids[: self.limits.max_query_tokens]
            room = self._room - len(kept_query)
            document = whole.get(text, heads[text])
            wanted = len(document.ids) if most is None else min(len(document.ids), most)
            parts = self._parts(wanted, room)
            for part in parts:
                pieces += (prefix, kept_query, middle, document.ids[part], suffix)
                lengths.append(len(kept_query) + part.stop - part.start + template.special_tokens)
                spans.append(document.span(part) if len(parts) > 1 else (0, len(text)))
            counts[i] = len(parts)
            starts[i] = len(prefix) + len(kept_query) + len(middle)
            truncated[i] = len(kept_query) < len(query_ids) or parts[-1].stop < len(document.ids)
        rows = np.asarray(lengths, dtype=np.int32)
        offsets = np.zeros(len(queries) + 1, dtype=np.int64)
        np.cumsum(_sums(rows, counts), out=offsets[1:])
        return EncodedPairs(
            token_ids=np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int32),
            offsets=offsets,
            document_starts=starts,
            truncated=truncated,
            chunks=Chunks(counts, rows, np.asarray(spans, dtype=np.int32).reshape(-1, 2))
            if self.limits.chunks
            else None,
        )

    def _parts(self, tokens: int, room: int) -> list[slice]:
        """Which tokens of a document are read together: one part, or several where it is too long for one."""
        if not self.limits.chunks:
            return [slice(0, min(tokens, room))]
        starts = chunk_starts(tokens, room, self.limits.chunk_overlap)
        return [slice(start, min(tokens, start + room)) for start in starts]

    def _whole_documents(
        self, queries: Sequence[str], texts: Sequence[str], heads: Mapping[str, _Tokens]
    ) -> dict[str, _Tokens]:
        """Documents that will need several chunks, with all their tokens that will be read, and where these are."""
        most = self.limits.max_document_tokens
        long: dict[str, None] = {}
        for query, text in zip(queries, texts, strict=True):
            room = self._room - min(len(heads[query].ids), self.limits.max_query_tokens)
            if len(heads[text].ids) > room and (most is None or most > room):
                long[text] = None
        return self._tokenize(long, None if most is None else most + 1, spans=True)

    def _tokenize(self, texts: Iterable[str], needed: int | None, *, spans: bool = False) -> dict[str, _Tokens]:
        """Tokens per text, without special tokens: the first `needed` of them, or all."""
        keys = list(texts)
        whole = [_readable(text) for text in keys]
        if needed is None or not self._may_cut:
            return dict(zip(keys, self._tokens(whole, needed, spans=spans), strict=True))
        characters = needed * _CHARACTERS_PER_TOKEN
        heads = [head(text, characters) for text in whole]
        found = self._tokens(heads, needed, spans=spans)
        while short := [i for i, part in enumerate(heads) if len(found[i].ids) < needed and len(part) < len(whole[i])]:
            # few tokens in many characters, such as words that are one unknown token each
            characters *= _CHARACTERS_PER_TOKEN
            for i in short:
                heads[i] = head(whole[i], characters)
            for i, more in zip(short, self._tokens([heads[i] for i in short], needed, spans=spans), strict=True):
                found[i] = more
        return dict(zip(keys, found, strict=True))

    def _tokens(self, texts: Sequence[str], needed: int | None, *, spans: bool) -> list[_Tokens]:
        encode = (
            self._tokenizer.encode_batch if spans else self._tokenizer.encode_batch_fast
        )  # the fast one knows no spans
        found: list[_Tokens] = []
        for batch in _batches(texts):
            for encoding in encode(batch, add_special_tokens=False):
                ids = np.asarray(encoding.ids[:needed], dtype=np.int32)
                where = np.asarray(encoding.offsets[:needed], dtype=np.int32).reshape(-1, 2) if spans else _NO_SPANS
                found.append(_Tokens(ids, where))
        return found


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Cut texts into batches of a bounded number of texts and, but for a single text, of characters."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        if batch and (len(batch) == _TEXTS_AT_A_TIME or characters + len(text) > _CHARACTERS_AT_A_TIME):
            yield batch
            batch, characters = [], 0
        batch.append(text)
        characters += len(text)
    if batch:
        yield batch


def _sums(values: NDArray[np.int32], counts: NDArray[np.int32]) -> NDArray[np.int64]:
    """Sums over the first `counts[0]` values, then over the next `counts[1]`, and so on."""
    ends = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    stops = np.cumsum(counts, dtype=np.int64)
    sums: NDArray[np.int64] = ends[stops] - ends[stops - counts]
    return sums


def _readable(text: str) -> str:
    """Join surrogate pairs and replace lone surrogates, which UTF-8 cannot hold, by U+FFFD."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
