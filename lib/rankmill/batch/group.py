"""Gathers scattered queries: their rows are read once and written again, sorted by the shard that will score them.

One file per chunk of input, one row group per shard in it; a shard then reads its row group from each of them. This is
the map side of a shuffle, kept on the output's own storage, so that memory stays flat and a lost worker costs nothing.
"""

import io
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from rankmill.batch.plan import Piece, Plan, Scattered, with_pieces
from rankmill.batch.read import Source
from rankmill.storage.store import Store
from rankmill.tables.locate import InputFile

FOLDER = "_rankmill/gathered"
_CHUNK_PAIRS = 131_072  # rows sorted in memory at a time: about 256 MB of text at 2 kB a row


@dataclass(frozen=True, slots=True)
class Chunk:
    """Scattered runs of one input file, near each other, that one task gathers."""

    index: int
    runs: tuple[Scattered, ...]


@dataclass(frozen=True, slots=True)
class Gathered:
    """A file that a task wrote, and where in it each shard's rows are."""

    chunk: int
    file: InputFile
    ranges: tuple[tuple[int, int, int], ...]
    """(shard, first row, row after the last), in order."""


def chunks(plan: Plan) -> list[Chunk]:
    """Share the scattered runs out over tasks: one input file each, a bounded number of rows."""
    groups: list[list[Scattered]] = []
    rows = 0
    for run in plan.scattered:
        size = run.piece.stop - run.piece.start
        if not groups or groups[-1][0].piece.file != run.piece.file or rows + size > _CHUNK_PAIRS:
            groups.append([])
            rows = 0
        groups[-1].append(run)
        rows += size
    return [Chunk(index, tuple(group)) for index, group in enumerate(groups)]


def gather(chunk: Chunk, source: Source, store: Store) -> Gathered:
    """Read a chunk's rows, sort them by shard and write them; the same chunk always gives the same file."""
    first, last = chunk.runs[0].piece, chunk.runs[-1].piece
    parts: dict[int, list[pa.Table]] = defaultdict(list)
    waiting = list(chunk.runs)
    position = 0
    for table in source.rows(Piece(first.file, first.start, last.stop, first.offset)):
        rows = table.column("row").to_numpy()
        while position < len(waiting):
            run = waiting[position]
            low, high = rows.searchsorted([run.piece.start, run.piece.stop])
            if high > low:
                parts[run.shard].append(table.slice(low, high - low))
            if high == len(rows):
                break
            position += 1
    sink = io.BytesIO()
    ranges = []
    written = 0
    with pq.ParquetWriter(sink, source.layout.canonical_schema(), compression="zstd", write_page_checksum=True) as out:
        for shard in sorted(parts):
            table = pa.concat_tables(parts.pop(shard))
            out.write_table(table, row_group_size=max(len(table), 1))
            ranges.append((shard, written, written + len(table)))
            written += len(table)
    key = f"{FOLDER}/{chunk.index:06}.parquet"
    body = sink.getvalue()
    store.create(key, body)
    return Gathered(chunk.index, InputFile(store.join(key), len(body), ""), tuple(ranges))


def complete(plan: Plan, gathered: Iterable[Gathered]) -> tuple[Plan, tuple[InputFile, ...]]:
    """Tell the plan where the gathered rows are."""
    files = sorted(gathered, key=lambda item: item.chunk)
    pieces: dict[int, list[Piece]] = defaultdict(list)
    for number, item in enumerate(files):
        for shard, start, stop in item.ranges:
            pieces[shard].append(Piece(len(plan.files) + number, start, stop, 0))
    done = with_pieces(plan, {shard: tuple(found) for shard, found in pieces.items()})
    return done, tuple(item.file for item in files)
