"""The values that cross layers: frozen, named in the field's own words.

Objects live at the edges (one request, one question); inside the batch pipeline the same facts travel as Arrow columns
(`rankmill.tables.schema`), which is an order of magnitude cheaper in time and memory.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Chunks:
    """How `n` pairs are made of `m` chunks: a long document is read in overlapping parts, each of them with the query.

    The chunks of all pairs one after the other, in the order of the document; every pair has at least one.
    """

    counts: NDArray[np.int32]
    """Shape (n,): chunks per pair, at least 1; 1 for a document that fits."""
    lengths: NDArray[np.int32]
    """Shape (m,): tokens per chunk, special tokens and query included."""
    spans: NDArray[np.int32]
    """Shape (m, 2): the first character of the document that a chunk covers, and the one after its last."""

    @property
    def starts(self) -> NDArray[np.int64]:
        """Shape (n,): position, among all chunks, of each pair's first."""
        counts = self.counts.astype(np.int64)
        return np.cumsum(counts) - counts

    @property
    def owners(self) -> NDArray[np.int64]:
        """Shape (m,): the pair of each chunk, ascending."""
        return np.repeat(np.arange(len(self.counts)), self.counts)


@dataclass(frozen=True, slots=True)
class EncodedPairs:
    """`n` query-document pairs as token ids, ready for a forward pass, in input order.

    Ragged: pair `i` is `token_ids[offsets[i]:offsets[i + 1]]`, special tokens included; where long documents are read
    in chunks, these are its chunks' tokens, one chunk after the other.
    """

    token_ids: NDArray[np.int32]
    """Shape (total tokens,)."""
    offsets: NDArray[np.int64]
    """Shape (n + 1,); starts at 0."""
    document_starts: NDArray[np.int32]
    """Shape (n,): index, inside pair `i`, of the first token of the second segment (where token_type_ids become 1). The
    same in all chunks of a pair."""
    truncated: NDArray[np.bool_]
    """Shape (n,): whether the query or the document of pair `i` was cut. A document read in chunks is not."""
    chunks: Chunks | None = None
    """Where long documents are read in chunks: which; else None."""
    lists: NDArray[np.int32] | None = None
    """Shape (n,): which list each pair is in, ascending, for a scorer of lists (`rankmill.scoring.lists`); else
    None."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per pair, shape (n,)."""
        return np.diff(self.offsets)

    def rows(self) -> "EncodedPairs":
        """What a forward pass reads: every chunk a pair of its own; the pairs themselves where nothing is chunked."""
        if self.chunks is None:
            return self
        owners = self.chunks.owners
        offsets = np.zeros(len(owners) + 1, dtype=np.int64)
        np.cumsum(self.chunks.lengths, out=offsets[1:])
        return EncodedPairs(self.token_ids, offsets, self.document_starts[owners], self.truncated[owners])
