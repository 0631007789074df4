"""Gathers scattered queries: their rows are read once and written again, sorted by the shard that will score them.

One task per chunk of input; it writes files of a bounded size, with one row group per shard in each, and a shard then
reads its row group from every file. This is the map side of a shuffle, kept on the output's own storage, so that memory
stays flat and a lost worker costs nothing.
"""

import hashlib
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rankmill.batch.plan import Piece, Plan, Scattered, bins, unit_size, with_pieces
from rankmill.batch.read import Source
from rankmill.storage.store import Store
from rankmill.tables.locate import InputFile

FOLDER = "_rankmill/gathered"
_CHUNK_PAIRS = 131_072  # that one task gathers
_FILE_BYTES = 128 << 20  # sorted in memory at a time, however long the texts are


Keyed = tuple[pa.Table, NDArray[np.int32]]
"""Rows, and the number of the file's slice that each belongs into: its shard. Shape (rows,)."""


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Scattered runs of one input file, near each other, that one task gathers."""

    index: int
    runs: Scattered


@dataclass(frozen=True, slots=True)
class Gathered:
    """A file that a task wrote, and where in it each shard's rows are."""

    file: InputFile
    ranges: tuple[tuple[int, int, int], ...]
    """(shard, first row, row after the last), in order."""


def chunks(plan: Plan) -> list[Chunk]:
    """Share the scattered runs out over tasks: one input file each, a bounded number of pairs."""
    found: list[Chunk] = []
    for number, file in enumerate(plan.files):
        low, high = np.searchsorted(plan.scattered.file, [number, number + 1]).tolist()
        runs = plan.scattered[low:high]
        starts = bins(runs.pairs, unit_size(file, int(runs.pairs.sum()), _CHUNK_PAIRS))
        found += [Chunk(len(found) + n, runs[a:b]) for n, (a, b) in enumerate(pairwise([*starts.tolist(), len(runs)]))]
    return found


def gather(chunk: Chunk, source: Source, store: Store) -> list[Gathered]:
    """Read a chunk's rows, sort them by shard and write them; the same chunk always gives the same files."""
    pieces = enumerate(in_bulk(rows_of(chunk, source), _FILE_BYTES))
    return [write_sorted(table, shards, f"{FOLDER}/{chunk.index:06}-{n:06}", store) for n, (table, shards) in pieces]


def rows_of(chunk: Chunk, source: Source) -> Iterator[Keyed]:
    """The rows of a chunk with the shard of each, a batch at a time."""
    runs = chunk.runs
    everything = Piece(int(runs.file[0]), int(runs.start[0]), int(runs.stop[-1]), int(runs.offset[0]))
    for table in source.rows(everything):
        rows = table.column("row").to_numpy()
        run = np.searchsorted(runs.stop, rows, side="right")  # the first that ends after the row
        inside = rows >= runs.start[run]
        yield table.filter(inside), runs.shard[run[inside]]


def in_bulk(rows: Iterable[Keyed], size: int) -> Iterator[Keyed]:
    """The same rows in tables of `size` bytes, and a batch more."""
    tables: list[pa.Table] = []
    keys: list[NDArray[np.int32]] = []
    held = 0
    for table, key in rows:
        tables.append(table)
        keys.append(key)
        held += table.nbytes
        if held >= size:
            yield pa.concat_tables(tables), np.concatenate(keys)
            tables, keys, held = [], [], 0
    if tables:
        yield pa.concat_tables(tables), np.concatenate(keys)


def complete(plan: Plan, gathered: Iterable[Iterable[Gathered]]) -> tuple[Plan, tuple[InputFile, ...]]:
    """Tell the plan where the gathered rows are."""
    files = sorted((file for task in gathered for file in task), key=lambda item: item.file.uri)  # in input order
    pieces: dict[int, list[Piece]] = defaultdict(list)
    for number, item in enumerate(files):
        for shard, start, stop in item.ranges:
            pieces[shard].append(Piece(len(plan.files) + number, start, stop, 0))
    done = with_pieces(plan, {shard: tuple(found) for shard, found in pieces.items()})
    return done, tuple(item.file for item in files)


def write_sorted(table: pa.Table, shards: NDArray[np.int32], name: str, store: Store) -> Gathered:
    """Write a table sorted by shard, a row group each; rows of a shard keep their order."""
    order = np.argsort(shards, kind="stable")
    table = table.take(order)
    found, starts = np.unique(shards[order], return_index=True)
    edges = [*starts.tolist(), len(table)]
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, compression="zstd", write_page_checksum=True) as out:
        for start, stop in pairwise(edges):
            out.write_table(table.slice(start, stop - start), row_group_size=stop - start)
    body = sink.getvalue()
    # named by its content: what an earlier run gathered from an input that has changed since is not taken for this
    key = f"{name}-{hashlib.sha256(body).hexdigest()[:16]}.parquet"
    store.create(key, body)
    ranges = tuple(zip(found.tolist(), edges[:-1], edges[1:], strict=True))
    return Gathered(InputFile(store.join(key), len(body), "", store.storage), ranges)
