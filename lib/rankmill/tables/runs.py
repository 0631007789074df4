"""Runs: where each query's rows lie in a file. This is all the plan needs to know of the input's content."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rankmill.tables.text import without_unused


@dataclass(frozen=True, slots=True)
class Runs:
    """Maximal runs of consecutive rows with one query id, in file order; every row is in exactly one run."""

    query: NDArray[np.uint64]
    """Hash of the query id. Equal ids have equal hashes; a collision only makes two queries share a shard."""
    start: NDArray[np.int64]
    """First row of the run."""
    rows: NDArray[np.int64]
    """Rows of the run."""
    pairs: NDArray[np.int64]
    """Pairs of the run: its rows, or the candidates in them (nested input)."""
    offset: NDArray[np.int64]
    """Byte at which the first row starts, where the format has one (JSONL), else 0."""

    def __len__(self) -> int:
        return len(self.query)

    def where(self, chosen: NDArray[np.bool_]) -> "Runs":
        """Some of the runs; `chosen` has the shape (runs,)."""
        return Runs(self.query[chosen], self.start[chosen], self.rows[chosen], self.pairs[chosen], self.offset[chosen])

    @property
    def total_pairs(self) -> int:
        """Pairs of the file."""
        return int(self.pairs.sum())


def runs_of(ids: pa.Array, pairs: NDArray[np.int64], first_row: int, offsets: NDArray[np.int64] | None = None) -> Runs:
    """Find the runs in a batch.

    A null id has no query to belong to: its row joins the run before it, and is rejected when it is read.

    Args:
        ids: query id of each row, integers or text; may hold nulls.
        pairs: pairs in each row, shape (rows,).
        first_row: row number of the first row.
        offsets: byte at which each row starts, shape (rows,).
    """
    size = len(ids)
    if size == 0:
        none = np.zeros(0, dtype=np.int64)
        return Runs(none.astype(np.uint64), none, none, none, none)
    hashes = hash_ids(_fill_forward(ids))
    starts = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]]))
    return Runs(
        query=hashes[starts],
        start=starts + first_row,
        rows=np.diff(np.append(starts, size)),
        pairs=np.add.reduceat(pairs, starts).astype(np.int64),
        offset=np.zeros(len(starts), dtype=np.int64) if offsets is None else offsets[starts],
    )


def join(parts: Iterable[Runs]) -> Runs:
    """Concatenate the runs of consecutive batches, merging a run that goes over a boundary."""
    kept = [part for part in parts if len(part)]
    if not kept:
        return runs_of(pa.array([], pa.int64()), np.zeros(0, dtype=np.int64), 0)
    query = np.concatenate([part.query for part in kept])
    starts = np.flatnonzero(np.concatenate([[True], query[1:] != query[:-1]]))
    return Runs(
        query=query[starts],
        start=np.concatenate([part.start for part in kept])[starts],
        rows=np.add.reduceat(np.concatenate([part.rows for part in kept]), starts),
        pairs=np.add.reduceat(np.concatenate([part.pairs for part in kept]), starts),
        offset=np.concatenate([part.offset for part in kept])[starts],
    )


def _fill_forward(ids: pa.Array) -> pa.Array:
    """A null gets the id before it. A dictionary is not expanded: it may be far smaller than what it stands for."""
    if pa.types.is_dictionary(ids.type):
        ids = without_unused(ids)
        return pa.DictionaryArray.from_arrays(pc.fill_null_forward(ids.indices), ids.dictionary)
    return pc.fill_null_forward(ids.cast(pa.large_string()) if pa.types.is_string_view(ids.type) else ids)


def hash_ids(ids: pa.Array) -> NDArray[np.uint64]:
    """64-bit hash of each id (leading nulls: 0), the same in every process and for every spelling of text."""
    encoded = ids.dictionary_encode()
    integer = pa.types.is_integer(encoded.dictionary.type)
    values = encoded.dictionary.to_pylist() if integer else encoded.dictionary.cast(pa.large_binary()).to_pylist()
    table = np.array(
        [0, *(int.from_bytes(blake2b(str(v).encode() if integer else v, digest_size=8).digest()) for v in values)],
        dtype=np.uint64,
    )
    indices = pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
    hashes: NDArray[np.uint64] = table[indices + 1]
    return hashes
