"""Reads candidates from Parquet: footers at plan time, then ranges of rows, a batch at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rankmill.tables.canonical import from_batch, pairs_of
from rankmill.tables.errors import storage_errors
from rankmill.tables.locate import InputFile, open_input
from rankmill.tables.runs import Runs, join, runs_of
from rankmill.tables.schema import Layout

_BATCH_ROWS = 1024  # rows decoded at a time, so that memory does not depend on row groups ...
_BATCH_BYTES = 8 << 20  # ... nor on how many candidates a row holds
_BUFFER_BYTES = 4 << 20  # read ahead per column; large enough that a store's latency does not dominate


@dataclass(frozen=True, slots=True)
class Footer:
    """What a Parquet footer says."""

    schema: pa.Schema
    rows: int
    uncompressed_bytes: int


def read_footer(file: InputFile) -> Footer:
    """Read the schema and the size of a file.

    Raises:
        InputError, StorageError: as `storage_errors` says; so do all functions here.
    """
    with _open(file) as parquet:
        meta = parquet.metadata
        return Footer(parquet.schema_arrow, meta.num_rows, _text_bytes(meta))


def find_runs(file: InputFile, layout: Layout) -> Runs:
    """Find where each query's rows are, reading the id column only (nested: and the candidates' ids)."""
    names = layout.columns
    with _open(file) as parquet:
        nested = layout.nested
        columns = _leaves(parquet, names.query_id, names.candidates, names.doc_id) if nested else [names.query_id]
        parts = []
        row = 0
        for batch in parquet.iter_batches(batch_size=65536, columns=columns):
            pairs = pairs_of(batch.column(names.candidates)) if nested else np.ones(len(batch), dtype=np.int64)
            parts.append(runs_of(batch.column(names.query_id), pairs, row))
            row += len(batch)
        return join(parts)


def read_rows(file: InputFile, layout: Layout, source: int, start: int, stop: int) -> Iterator[pa.Table]:
    """Yield rows `start` to `stop` (exclusive) in canonical form, a batch at a time, in order."""
    names = layout.columns
    wanted = {names.query_id, names.query}
    if layout.nested:
        wanted |= {names.candidates} | {kept.name for kept in layout.keep if not kept.per_candidate}
    else:
        wanted |= {names.doc_id, *layout.document_columns, *(kept.name for kept in layout.keep)}
        wanted |= {names.retrieval_score} if layout.retrieval_score else set()
    for row, batch in _batches(file, wanted, start, stop):
        yield from_batch(batch, layout, source, row)


def read_table_rows(file: InputFile, start: int, stop: int) -> Iterator[pa.Table]:
    """Yield rows `start` to `stop` (exclusive) of a file of our own, as they are."""
    for _, batch in _batches(file, None, start, stop):
        yield pa.Table.from_batches([batch])


@contextmanager
def _open(file: InputFile) -> Iterator[pq.ParquetFile]:
    with storage_errors(file.uri), open_input(file.uri) as handle:
        yield pq.ParquetFile(handle, pre_buffer=False, buffer_size=_BUFFER_BYTES, page_checksum_verification=True)


def _batches(file: InputFile, columns: set[str] | None, start: int, stop: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield (number of the first row, batch) for the rows from `start` to `stop`, decoding no other row group.

    Columns that are not there are left out.
    """
    with _open(file) as parquet:
        meta = parquet.metadata
        there = None if columns is None else [name for name in parquet.schema_arrow.names if name in columns]
        size = min(max(_BATCH_BYTES * meta.num_rows // max(_text_bytes(meta), 1), 1), _BATCH_ROWS)
        ends = np.cumsum([meta.row_group(index).num_rows for index in range(meta.num_row_groups)])
        first = int(np.searchsorted(ends, start, side="right"))
        last = int(np.searchsorted(ends, stop, side="left"))
        row = int(ends[first - 1]) if first else 0
        groups = list(range(first, min(last + 1, len(ends))))
        for batch in parquet.iter_batches(batch_size=size, row_groups=groups, columns=there):
            low, high = max(start - row, 0), min(stop - row, len(batch))
            if low < high:
                yield row + low, batch.slice(low, high - low)
            row += len(batch)
            if row >= stop:
                return


def _text_bytes(meta: pq.FileMetaData) -> int:
    """Uncompressed size of all columns."""
    return sum(int(meta.row_group(index).total_byte_size) for index in range(meta.num_row_groups))


def _leaves(parquet: pq.ParquetFile, query_id: str, candidates: str, doc_id: str) -> list[str]:
    """Physical names of the id columns; writers disagree on what the element of a list is called."""
    paths = [parquet.schema.column(index).path for index in range(len(parquet.schema))]
    inside = [path for path in paths if path.startswith(f"{candidates}.")]
    return [query_id, *([path for path in inside if path.endswith(f".{doc_id}")] or inside)[:1]]
