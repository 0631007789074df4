"""How a shard travels through Ray Data: as one row, so that a shard stays one unit from the plan to its part file.

Ray Data schedules blocks and bundles rows; a one-row block can be neither split nor merged. Tables ride along as Arrow
IPC bytes (read back without a copy), token ids as one long list.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rankmill.scoring.lists import list_edges
from rankmill.types import Chunks, EncodedPairs

LIST = "list"
"""Column of canonical rows in lists."""


@dataclass(frozen=True, slots=True)
class EncodedShard:
    """A shard that waits for its logits."""

    index: int
    pairs: pa.Table
    """Canonical rows without their texts, plus `length`, `document_start` (int32) and `truncated` (bool) per pair.

    Where long documents are read in chunks also `chunks`: a list of structs `length, start, end` (int32; see `Chunks`).
    For a scorer of lists also `list` (int32, ascending): which one a pair is in.
    """
    rejected: pa.Table
    """Canonical rows that cannot be scored, without their texts."""
    token_ids: NDArray[np.int32]
    """All pairs' tokens, one after the other."""
    known: pa.Table | None = None
    """Pairs that need no logit, on their way to where the others get theirs (`rankmill.batch.repeats`)."""

    def encoded_pairs(self) -> EncodedPairs:
        """The pairs as the scorer wants them."""
        lengths = self.pairs.column("length").to_numpy()
        return EncodedPairs(
            token_ids=self.token_ids,
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            document_starts=self.pairs.column("document_start").to_numpy().astype(np.int32),
            truncated=self.pairs.column("truncated").to_numpy(zero_copy_only=False),
            chunks=_from_lists(self.pairs.column("chunks")) if "chunks" in self.pairs.column_names else None,
            lists=self.pairs.column(LIST).to_numpy() if self.listwise else None,
        )

    @property
    def listwise(self) -> bool:
        """Whether the pairs are in lists, each of which is scored whole or not at all."""
        return LIST in self.pairs.column_names

    @property
    def edges(self) -> NDArray[np.int64]:
        """Where it may be cut: rows at which pairs, or lists, begin, and behind them the number of rows."""
        return list_edges(self.pairs.column(LIST).to_numpy()) if self.listwise else np.arange(len(self.pairs) + 1)

    def piece(self, start: int, stop: int) -> "EncodedShard":
        """The pairs `start` to `stop` (exclusive) alone, without the rejected rows and those that are known."""
        ends = np.append(0, np.cumsum(self.pairs.column("length").to_numpy(), dtype=np.int64))
        tokens = self.token_ids[ends[start] : ends[stop]]
        return EncodedShard(self.index, self.pairs.slice(start, stop - start), self.rejected.slice(0, 0), tokens)

    def to_row(self) -> pa.Table:
        """Pack into a one-row table."""
        offsets = pa.array([0, len(self.token_ids)], pa.int64())
        return pa.table(
            {
                "shard": pa.array([self.index], pa.int64()),
                "pairs": pa.array([_to_ipc(self.pairs)], pa.large_binary()),
                "rejected": pa.array([_to_ipc(self.rejected)], pa.large_binary()),
                "token_ids": pa.LargeListArray.from_arrays(offsets, pa.array(self.token_ids, pa.int32())),
                "known": pa.array([_maybe_ipc(self.known)], pa.large_binary()),
            }
        )

    @classmethod
    def from_row(cls, row: pa.Table) -> "EncodedShard":
        """Unpack a one-row table."""
        tokens = row.column("token_ids").combine_chunks()
        return cls(
            index=row.column("shard")[0].as_py(),
            pairs=_from_ipc(row.column("pairs")[0]),
            rejected=_from_ipc(row.column("rejected")[0]),
            token_ids=tokens.flatten().to_numpy(),
            known=_maybe_table(row.column("known")[0]),
        )


@dataclass(frozen=True, slots=True)
class ScoredShard:
    """A shard with its logits, ready to be ranked and written."""

    index: int
    pairs: pa.Table
    """As in EncodedShard, plus `logit` (float32, finite).

    In the place of `chunks`, the characters of the best one: `best_chunk_start` and `best_chunk_end` (int32, null for a
    document that is not in several chunks).
    """
    rejected: pa.Table
    scoring_seconds: float
    """Time of the forward passes."""
    known: pa.Table | None = None
    """As in EncodedShard."""
    recalled: int = 0
    """Pairs among those known that are remembered from another shard (`rankmill.batch.memory`)."""

    def to_row(self) -> pa.Table:
        """Pack into a one-row table."""
        return pa.table(
            {
                "shard": pa.array([self.index], pa.int64()),
                "pairs": pa.array([_to_ipc(self.pairs)], pa.large_binary()),
                "rejected": pa.array([_to_ipc(self.rejected)], pa.large_binary()),
                "scoring_seconds": pa.array([self.scoring_seconds], pa.float64()),
                "recalled": pa.array([self.recalled], pa.int64()),
                "known": pa.array([_maybe_ipc(self.known)], pa.large_binary()),
            }
        )

    @classmethod
    def from_row(cls, row: pa.Table) -> "ScoredShard":
        """Unpack a one-row table."""
        return cls(
            index=row.column("shard")[0].as_py(),
            pairs=_from_ipc(row.column("pairs")[0]),
            rejected=_from_ipc(row.column("rejected")[0]),
            scoring_seconds=row.column("scoring_seconds")[0].as_py(),
            recalled=row.column("recalled")[0].as_py(),
            known=_maybe_table(row.column("known")[0]),
        )


def without(pairs: EncodedPairs, dropped: NDArray[np.int64]) -> EncodedPairs:
    """The pairs without those at the given positions."""
    kept = np.ones(len(pairs), dtype=bool)
    kept[dropped] = False
    lengths, chunks = pairs.lengths, pairs.chunks
    if chunks is not None:
        rows = np.repeat(kept, chunks.counts)
        chunks = Chunks(chunks.counts[kept], chunks.lengths[rows], chunks.spans[rows])
    return EncodedPairs(
        token_ids=pairs.token_ids[np.repeat(kept, lengths)],
        offsets=np.concatenate([[0], np.cumsum(lengths[kept])]).astype(np.int64),
        document_starts=pairs.document_starts[kept],
        truncated=pairs.truncated[kept],
        chunks=chunks,
        lists=None if pairs.lists is None else pairs.lists[kept],
    )


def chunk_lists(chunks: Chunks) -> pa.ListArray:
    """Chunks as a column with a list per pair."""
    offsets = pa.array(np.append(chunks.starts, len(chunks.lengths)), pa.int32())
    fields = {"length": chunks.lengths, "start": chunks.spans[:, 0], "end": chunks.spans[:, 1]}
    columns = [pa.array(np.ascontiguousarray(values), pa.int32()) for values in fields.values()]
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(columns, names=list(fields)))


def _from_lists(column: pa.ChunkedArray) -> Chunks:
    lists = column.combine_chunks()
    flat = lists.flatten()
    return Chunks(
        counts=lists.value_lengths().to_numpy(),
        lengths=flat.field("length").to_numpy(),
        spans=np.stack([flat.field("start").to_numpy(), flat.field("end").to_numpy()], axis=1),
    )


def _to_ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    body: bytes = sink.getvalue().to_pybytes()
    return body


def _from_ipc(value: pa.LargeBinaryScalar) -> pa.Table:
    table = pa.ipc.open_stream(value.as_buffer()).read_all()
    return table.combine_chunks()


def _maybe_ipc(table: pa.Table | None) -> bytes | None:
    return None if table is None else _to_ipc(table)


def _maybe_table(value: pa.LargeBinaryScalar) -> pa.Table | None:
    return _from_ipc(value) if value.is_valid else None
