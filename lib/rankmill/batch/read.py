"""From a plan's row ranges to the canonical rows of each shard; one pass over a file for all the shards of a unit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rankmill.batch.plan import Piece, ReadUnit, Shard
from rankmill.errors import DamagedInputError, InputError
from rankmill.tables import jsonl, parquet, run
from rankmill.tables.canonical import unread, withhold
from rankmill.tables.locate import InputFile, refuse_replaced
from rankmill.tables.schema import Layout
from rankmill.tables.text import TABLE_BYTES

_ATTEMPTS = 3
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Source:
    """All the files of a job and how to read them; what every read task gets."""

    layout: Layout
    inputs: tuple[InputFile, ...]
    gathered: tuple[InputFile, ...] = ()
    """Files that `rankmill.batch.group` made, already in canonical form."""
    ids_only: bool = False
    """Whether the inputs are a run: `rankmill.batch.join` finds the texts."""

    reject_damaged: bool = False
    """Whether rows that cannot be read are rejected, instead of ending the job (--bad-files reject)."""

    def rows(self, piece: Piece) -> Iterator[pa.Table]:
        """Yield the rows of a piece in canonical form, a batch at a time, in order.

        Every batch was read from the version of the file that the job was planned with.

        Raises:
            InputError: the file was replaced.
            DamagedInputError: it cannot be read, three times in a row (the network may damage bytes, too).
        """
        if piece.file >= len(self.inputs):
            yield from parquet.read_table_rows(self.gathered[piece.file - len(self.inputs)], piece.start, piece.stop)
            return
        file = self.inputs[piece.file]
        if file.problem:
            yield unread(self.layout, piece.file, 0, 1, "unreadable_file", file.problem)
            return
        following, attempts = piece.start, 0
        while True:
            try:
                for table in self._read(file, piece):
                    rows = table.column("row").to_numpy()
                    fresh = table.slice(int(np.searchsorted(rows, following)))
                    refuse_replaced(file)
                    if len(fresh):
                        following = int(rows[-1]) + 1
                        yield fresh
                break
            except DamagedInputError as error:
                refuse_replaced(file)
                attempts += 1
                if attempts < _ATTEMPTS:
                    continue
                if not self.reject_damaged:
                    raise
                yield unread(self.layout, piece.file, following, piece.stop, "damaged_rows", str(error))
                break

    def _read(self, file: InputFile, piece: Piece) -> Iterator[pa.Table]:
        lines = jsonl.Lines(piece.start, piece.stop, piece.offset)
        checked = self.reject_damaged  # else damage ends the job, whatever came before it
        if self.ids_only:
            return run.read_rows(file, self.layout, piece.file, lines, checked=checked)
        if file.format == "parquet":
            return parquet.read_rows(file, self.layout, piece.file, piece.start, piece.stop, checked=checked)
        return jsonl.read_rows(file, self.layout, piece.file, lines)


def refuse_duplicates(table: pa.Table) -> None:
    """Refuse a shard that has a document twice for a query; all rows of a query are in one shard.

    Raises:
        InputError: naming the first few.
    """
    counts = table.group_by(["query_id", "doc_id"]).aggregate([([], "count_all")])
    twice = counts.filter(pc.greater(counts.column("count_all"), 1))
    if len(twice):
        shown = [
            f"query {row['query_id']!r}, document {row['doc_id']!r}: {row['count_all']} times"
            for row in twice.slice(0, _SHOWN).to_pylist()
        ]
        raise InputError(
            f"{len(twice):,} pairs of a query and a document are there more than once, and --require-unique refuses "
            "that. Remove them, or go without the flag: every row is then ranked.",
            shown,
        )


def read_shards(unit: ReadUnit, source: Source) -> Iterator[tuple[Shard, pa.Table]]:
    """Yield each shard of the unit with its rows in canonical form, in input order; one shard is held at a time.

    Raises:
        InputError: a shard no longer holds the pairs that it held when the job was planned.
    """
    held: list[pa.Table] = []
    if len(unit.shards) == 1:
        shard = unit.shards[0]
        room = TABLE_BYTES
        for piece in shard.pieces:
            for table in source.rows(piece):
                bounded, used = withhold(table, room)
                held.append(bounded)
                room -= used
        yield shard, _whole(shard, held, source)
        return
    first, last = unit.shards[0].pieces[0], unit.shards[-1].pieces[0]
    waiting = list(unit.shards)
    room = TABLE_BYTES
    for table in source.rows(Piece(first.file, first.start, last.stop, first.offset)):
        rows = table.column("row").to_numpy()  # ascending; a row of nested input comes once per candidate
        while waiting:
            piece = waiting[0].pieces[0]
            low, high = np.searchsorted(rows, [piece.start, piece.stop])
            bounded, used = withhold(table.slice(low, high - low), room)
            held.append(bounded)
            room -= used
            if high == len(rows):
                break  # the next batch may hold more of this shard
            yield waiting[0], _whole(waiting.pop(0), held, source)
            held, room = [], TABLE_BYTES
    for shard in waiting:
        yield shard, _whole(shard, held, source)
        held = []


def _whole(shard: Shard, tables: Sequence[pa.Table], source: Source) -> pa.Table:
    table = pa.concat_tables([source.layout.canonical_schema().empty_table(), *tables])
    table = _padded(table, shard.pairs)
    if len(table) != shard.pairs:
        files = sorted({piece.file for piece in shard.pieces if piece.file < len(source.inputs)})
        names = ", ".join(source.inputs[file].uri for file in files) or "the gathered rows"
        raise InputError(
            f"The input changed while the job ran: {names} held {shard.pairs} pairs for shard {shard.index} when the "
            f"job was planned, and {len(table)} now. Put the old file back, or start a new job with another --output."
        )
    return table


def _padded(table: pa.Table, pairs: int) -> pa.Table:
    """Rows that cannot be read do not say how many candidates they have: the first of them stands for what lacks."""
    damaged = np.flatnonzero(pc.equal(pc.fill_null(table.column("reason"), ""), "damaged_rows"))
    if len(table) >= pairs or not len(damaged):
        return table
    times = np.ones(len(table), dtype=np.int64)
    times[damaged[0]] += pairs - len(table)
    return table.take(pa.array(np.repeat(np.arange(len(table)), times)))
