"""From texts to token ids: our own pair assembly, the same for batch and online, with no torch in sight.

Query and document are tokenised apart from each other and joined by the model's own pair format. That gives what
transformers' `tokenizer(query, text)` gives wherever nothing has to be cut (tested for every family), and differs
where something has to: transformers' `longest_first` shortens the query for a long document, here the query is cut
first, to a fixed limit, and after that only the document gives way.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from rankmill.scoring.chunks import chunk_starts
from rankmill.scoring.limits import Limits
from rankmill.scoring.template import PairTemplate
from rankmill.scoring.text_tokens import TextTokenizer, Tokens
from rankmill.types import Chunks, EncodedPairs

ASSEMBLY_VERSION = 1
"""Part of every fingerprint; raised when the same texts would give other token ids than before."""


class PairEncoder:
    """Turns pairs of texts into token ids. Survives pickling.

    Args:
        tokenizer: the model's, for texts; may be shared.
        template: the model's pair format.
        limits: with room for the template, the query and at least one token of a document.
    """

    def __init__(self, tokenizer: TextTokenizer, template: PairTemplate, limits: Limits) -> None:
        self._tokenizer = tokenizer
        self.template = template
        self.limits = limits
        self._room = limits.max_length - template.special_tokens

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
        self, queries: Sequence[str], texts: Sequence[str], heads: Mapping[str, Tokens]
    ) -> dict[str, Tokens]:
        """Documents that will need several chunks, with all their tokens that will be read, and where these are."""
        most = self.limits.max_document_tokens
        long: dict[str, None] = {}
        for query, text in zip(queries, texts, strict=True):
            room = self._room - min(len(heads[query].ids), self.limits.max_query_tokens)
            if len(heads[text].ids) > room and (most is None or most > room):
                long[text] = None
        return self._tokenize(long, None if most is None else most + 1, spans=True)

    def _tokenize(self, texts: Iterable[str], needed: int | None, *, spans: bool = False) -> dict[str, Tokens]:
        """Tokens per text, without special tokens: the first `needed` of them, or all."""
        keys = list(texts)
        return dict(zip(keys, self._tokenizer.tokens(keys, needed, spans=spans), strict=True))


def _sums(values: NDArray[np.int32], counts: NDArray[np.int32]) -> NDArray[np.int64]:
    """Sums over the first `counts[0]` values, then over the next `counts[1]`, and so on."""
    ends = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    stops = np.cumsum(counts, dtype=np.int64)
    sums: NDArray[np.int64] = ends[stops] - ends[stops - counts]
    return sums
