"""Reads candidates from Parquet: where queries lie at plan time, then ranges of rows, a batch at a time."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt
from numpy.typing import NDArray

from rankmill.tables.canonical import from_batch, pairs_of
from rankmill.tables.complete import complete
from rankmill.tables.errors import storage_errors
from rankmill.tables.footers import check_footer
from rankmill.tables.locate import InputFile, open_file
from rankmill.tables.runs import Runs, join, runs_of
from rankmill.tables.schema import Layout
from rankmill.tables.text import expanded_bytes

_BATCH_ROWS = 1024  # rows decoded at a time, so that memory does not depend on row groups ...
_BATCH_BYTES = 8 << 20  # ... nor on how many candidates a row holds
_ID_ROWS = 65_536  # the same, of ids alone
_GROUP_BYTES = 2 << 30  # no batch is larger than its row group; where that is larger than offsets of 32 bits reach ...
_FEW_ROWS = 64  # ... few rows are decoded at a time, for one part of a group may hold all of its bytes
_EXPANDED_BYTES = 64 << 20  # text that one read may expand to
_PROBE_BYTES = 64 << 10
_BUFFER_BYTES = 4 << 20  # read ahead per column; large enough that a store's latency does not dominate


@dataclass(frozen=True, slots=True)
class _Opened:
    """A file that is being read."""

    file: InputFile
    handle: IO[bytes]
    parquet: pq.ParquetFile


@dataclass(frozen=True, slots=True)
class Chosen:
    """What to read of a file: columns, and of the column of candidates some fields."""

    columns: frozenset[str] = frozenset()
    candidates: str | None = None
    fields: frozenset[str] = frozenset()

    def paths(self, parquet: pq.ParquetFile) -> list[str]:
        """Names of those that are there; fields by their leaves, wherever writers put the element of a list."""
        plain = [name for name in parquet.schema_arrow.names if name in self.columns]
        inside = [path for path in _leaves(parquet) if path.startswith(f"{self.candidates}.")]
        return plain + [path for path in inside if any(f".{field}." in f"{path}." for field in self.fields)]

    def texts(self, parquet: pq.ParquetFile) -> list[str]:
        """Those of the paths that are text, and not deeper inside."""
        found = []
        for index, path in enumerate(_leaves(parquet)):
            named = path in self.columns or any(
                path.startswith(f"{self.candidates}.") and path.endswith(f".{field}") for field in self.fields
            )
            if named and parquet.schema.column(index).logical_type.type == "STRING":
                found.append(path)
        return found


def find_runs(file: InputFile, layout: Layout) -> Runs:
    """Find where each query's rows are, reading the id column only (nested: and the candidates' ids).

    Raises:
        DamagedInputError: the file cannot be read, or not all of its rows come; so do all functions here.
        InputError, StorageError: as `storage_errors` says; so do all functions here.
    """
    names, nested = layout.columns, layout.nested
    chosen = Chosen(frozenset({names.query_id}))
    if nested:
        chosen = replace(chosen, candidates=names.candidates, fields=frozenset({names.doc_id}))
    parts = []
    with storage_errors(file.uri), open_file(file) as handle:
        opened = _Opened(file, handle, _reader(handle))
        for row, batch in _read(opened, chosen, range(opened.parquet.num_row_groups), _ID_ROWS, together=True):
            pairs = pairs_of(batch.column(names.candidates)) if nested else np.ones(len(batch), dtype=np.int64)
            parts.append(runs_of(batch.column(names.query_id), pairs, row))
    return join(parts)


def read_rows(
    file: InputFile, layout: Layout, source: int, start: int, stop: int, *, checked: bool = False
) -> Iterator[pa.Table]:
    """Yield rows `start` to `stop` (exclusive) in canonical form, a batch at a time, in order; see `read_batches`."""
    names = layout.columns
    pairs = {names.doc_id, *layout.document_columns, *(kept.name for kept in layout.keep if kept.per_candidate)}
    pairs |= {names.retrieval_score} if layout.retrieval_score else set()
    wanted = {names.query_id, names.query} | {kept.name for kept in layout.keep if not kept.per_candidate}
    if layout.nested:
        chosen = Chosen(frozenset(wanted), names.candidates, frozenset(pairs))
    else:
        chosen = Chosen(frozenset(wanted | pairs))
    for row, batch in read_batches(file, chosen, start, stop, checked=checked):
        for at, part in _bounded(batch, layout):
            yield from_batch(part, layout, source, row + at)


def read_table_rows(file: InputFile, start: int, stop: int) -> Iterator[pa.Table]:
    """Yield rows `start` to `stop` (exclusive) of a file of our own, as they are."""
    for _, batch in read_batches(file, None, start, stop):
        yield pa.Table.from_batches([batch])


def _reader(handle: IO[bytes], meta: pq.FileMetaData | None = None, **options: Any) -> pq.ParquetFile:
    settings = {"buffer_size": _BUFFER_BYTES, "page_checksum_verification": True} | options
    return pq.ParquetFile(handle, metadata=meta, **settings)


def _read(
    opened: _Opened,
    chosen: Chosen | None,
    groups: range,
    most: int,
    *,
    together: bool = False,
    checked: bool = False,
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield (first row, batch) of what is chosen (None: all), `most` rows at a time; bombs come as dictionaries.

    One row group at a time: damage spoils no other, and dictionaries in lists must not change. `together` reads those
    without dictionaries as one, which is many times as fast where they are small. `checked` decodes a row group of
    several batches once more, before any of them is passed on.
    """
    parquet, meta = opened.parquet, opened.parquet.metadata
    check_footer(opened.file, meta, groups)
    paths = chosen.paths(parquet) if chosen else None
    sizes = {index: _batch_rows(meta.row_group(index), paths, most) for index in groups}
    heavy = _explosive(opened.handle, parquet, chosen.texts(parquet), sizes) if chosen else []
    if heavy:
        parquet = _reader(opened.handle, meta, read_dictionary=heavy)
    row = _starts(meta)[groups.start]
    for span in [groups] if together and not heavy else [range(index, index + 1) for index in groups]:
        rows, size = sum(meta.row_group(index).num_rows for index in span), min((sizes[i] for i in span), default=most)
        options = {"batch_size": size, "row_groups": list(span), "columns": paths}
        if checked and rows > size:
            for _ in complete(parquet.iter_batches(**options), rows, opened.file, span):
                pass
        for batch in complete(parquet.iter_batches(**options), rows, opened.file, span):
            yield row, batch
            row += len(batch)


def _starts(meta: pq.FileMetaData) -> list[int]:
    """Number of the first row of each row group, and that of all rows."""
    return [0, *accumulate(meta.row_group(index).num_rows for index in range(meta.num_row_groups))]


def _batch_rows(group: pq.RowGroupMetaData, paths: Sequence[str] | None, most: int) -> int:
    """Rows of a row group to decode at a time: about 8 MiB of what is read of it, as far as its footer tells."""
    chunks = [group.column(index) for index in range(group.num_columns)]
    chosen = [c for c in chunks if paths is None or any(f"{c.path_in_schema}.".startswith(f"{p}.") for p in paths)]
    size = sum(int(chunk.total_uncompressed_size) for chunk in chosen)
    most = min(most, _FEW_ROWS) if size > _GROUP_BYTES else most
    return min(max(_BATCH_BYTES * int(group.num_rows) // max(size, 1), 1), most)


def _explosive(handle: IO[bytes], parquet: pq.ParquetFile, texts: Sequence[str], sizes: Mapping[int, int]) -> list[str]:
    """Text columns of which a batch may take more than `_EXPANDED_BYTES`, by the longest value of a dictionary.

    Footers tell the size of a dictionary, not how often its values are used: 300 bytes may stand for gigabytes. What
    is not in a dictionary lies in the file as often as it is used.

    Args:
        handle: the file.
        parquet: the same, opened.
        texts: paths of text columns.
        sizes: rows that are decoded at a time, by row group.
    """
    columns = {path: index for index, path in enumerate(_leaves(parquet))}
    found = []
    for path in texts:
        for index, size in sizes.items():
            group = parquet.metadata.row_group(index)
            chunk = group.column(columns[path])
            if not group.num_rows or not any("DICTIONARY" in encoding for encoding in chunk.encodings):
                continue
            probe = _reader(handle, parquet.metadata, read_dictionary=[path], buffer_size=_PROBE_BYTES)
            first = next(probe.iter_batches(batch_size=1, row_groups=[index], columns=[path]), None)
            values = size * max(chunk.num_values / group.num_rows, 1)
            if first is not None and _longest(first.column(0)) * values > _EXPANDED_BYTES:
                found.append(path)
                break
    return found


def _longest(column: pa.Array) -> int:
    """Bytes of the longest value of a dictionary, which may lie in structs in lists."""
    while not pt.is_dictionary(column.type):
        column = column.values if pt.is_list(column.type) or pt.is_large_list(column.type) else column.field(0)
    return int(pc.max(pc.binary_length(column.dictionary)).as_py() or 0)


def read_batches(
    file: InputFile, chosen: Chosen | None, start: int, stop: int, *, checked: bool = False
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield (number of the first row, batch) for the rows from `start` to `stop`, decoding no other row group.

    A damaged page header may put rows together that do not belong together, and only the end of its row group tells.

    Args:
        file: what to read.
        chosen: which columns; without a choice, of a file of our own, all of them.
        start: first row.
        stop: row after the last.
        checked: yield nothing of a row group before it was decoded to its end, at the price of decoding large ones
            twice; for who goes on after an error with what came before it.
    """
    with storage_errors(file.uri), open_file(file) as handle:
        opened = _Opened(file, handle, _reader(handle))
        starts = _starts(opened.parquet.metadata)
        groups = range(bisect_right(starts, start) - 1, min(bisect_left(starts, stop), len(starts) - 1))
        for row, batch in _read(opened, chosen, groups, _BATCH_ROWS, checked=checked):
            low, high = max(start - row, 0), min(stop - row, len(batch))
            if low < high:
                yield row + low, batch.slice(low, high - low)
            if row + len(batch) >= stop:
                return


def _leaves(parquet: pq.ParquetFile) -> list[str]:
    return [parquet.schema.column(index).path for index in range(len(parquet.schema))]


def _bounded(batch: pa.RecordBatch, layout: Layout) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Cut a batch whose text is not expanded yet, so that no part takes much more than 8 MiB; (first row, part)."""
    sizes = np.zeros(len(batch), dtype=np.int64)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pt.is_dictionary(column.type):
            sizes += expanded_bytes(column, layout.max_text_bytes)
        elif layout.nested and name == layout.columns.candidates:
            sizes += _bytes_inside(column, layout.max_text_bytes)
    start = 0
    totals = np.cumsum(sizes)
    while start < len(batch):
        before = totals[start - 1] if start else 0
        stop = max(int(np.searchsorted(totals, before + _BATCH_BYTES, side="right")), start + 1)
        yield start, batch.slice(start, stop - start)
        start = stop


def _bytes_inside(candidates: pa.Array, limit: int) -> NDArray[np.int64]:
    """Bytes that the texts of each list of candidates take once they are expanded."""
    structs = pc.list_flatten(candidates)
    inside = [pc.struct_field(structs, field.name) for field in structs.type]
    sizes = [expanded_bytes(column, limit) for column in inside if pt.is_dictionary(column.type)]
    totals = np.append(0, np.cumsum(np.sum(sizes, axis=0))) if sizes else np.zeros(len(structs) + 1)
    lengths = pc.fill_null(pc.list_value_length(candidates), 0).to_numpy(zero_copy_only=False)
    inside_lists: NDArray[np.int64] = np.diff(totals[np.append(0, np.cumsum(lengths))]).astype(np.int64)
    return inside_lists
