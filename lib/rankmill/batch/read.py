"""From a plan's row ranges to the canonical rows of each shard; one pass over a file for all the shards of a unit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rankmill.batch.plan import Piece, ReadUnit, Shard
from rankmill.errors import InputError
from rankmill.tables import jsonl, parquet
from rankmill.tables.locate import InputFile
from rankmill.tables.schema import Layout


@dataclass(frozen=True, slots=True)
class Source:
    """All the files of a job and how to read them; what every read task gets."""

    layout: Layout
    inputs: tuple[InputFile, ...]
    gathered: tuple[InputFile, ...] = ()
    """Files that `rankmill.batch.group` made, already in canonical form."""

    def rows(self, piece: Piece) -> Iterator[pa.Table]:
        """Yield the rows of a piece in canonical form, a batch at a time, in order."""
        if piece.file >= len(self.inputs):
            return parquet.read_table_rows(self.gathered[piece.file - len(self.inputs)], piece.start, piece.stop)
        file = self.inputs[piece.file]
        if file.format == "parquet":
            return parquet.read_rows(file, self.layout, piece.file, piece.start, piece.stop)
        return jsonl.read_rows(file, self.layout, piece.file, jsonl.Lines(piece.start, piece.stop, piece.offset))


def read_shards(unit: ReadUnit, source: Source) -> Iterator[tuple[Shard, pa.Table]]:
    """Yield each shard of the unit with its rows in canonical form, in input order; one shard is held at a time.

    Raises:
        InputError: a shard no longer holds the pairs that it held when the job was planned.
    """
    if len(unit.shards) == 1:
        shard = unit.shards[0]
        yield shard, _whole(shard, [table for piece in shard.pieces for table in source.rows(piece)], source)
        return
    first, last = unit.shards[0].pieces[0], unit.shards[-1].pieces[0]
    waiting = list(unit.shards)
    held: list[pa.Table] = []
    for table in source.rows(Piece(first.file, first.start, last.stop, first.offset)):
        rows = table.column("row").to_numpy()  # ascending; a row of nested input comes once per candidate
        while waiting:
            piece = waiting[0].pieces[0]
            low, high = np.searchsorted(rows, [piece.start, piece.stop])
            held.append(table.slice(low, high - low))
            if high == len(rows):
                break  # the next batch may hold more of this shard
            yield waiting[0], _whole(waiting.pop(0), held, source)
            held = []
    for shard in waiting:
        yield shard, _whole(shard, held, source)
        held = []


def _whole(shard: Shard, tables: Sequence[pa.Table], source: Source) -> pa.Table:
    table = pa.concat_tables([source.layout.canonical_schema().empty_table(), *tables])
    if len(table) != shard.pairs:
        files = sorted({piece.file for piece in shard.pieces if piece.file < len(source.inputs)})
        names = ", ".join(source.inputs[file].uri for file in files) or "the gathered rows"
        raise InputError(
            f"The input changed while the job ran: {names} held {shard.pairs} pairs for shard {shard.index} when the "
            f"job was planned, and {len(table)} now. Put the old file back, or start a new job with another --output."
        )
    return table
