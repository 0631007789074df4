"""Reads runs as candidates without text: `query_id, doc_id, retrieval_score`, in Parquet or in TREC's format.

Rows come in the canonical form of `rankmill.tables.schema`, with empty strings for the texts that a join will find.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rankmill.settings.rerank import Columns
from rankmill.tables.canonical import Problem, canonical
from rankmill.tables.jsonl import Lines
from rankmill.tables.lines import in_chunks, read_lines
from rankmill.tables.locate import InputFile
from rankmill.tables.parquet import Chosen, read_batches
from rankmill.tables.runs import Runs, join, runs_of
from rankmill.tables.schema import Layout, layout_of
from rankmill.tables.trec import parse_line

_MARK = b"\xef\xbb\xbf"  # some editors begin a file with it


def trec_schema(columns: Columns) -> pa.Schema:
    """What a run in TREC's format is read as; ids are strings there."""
    return pa.schema(
        [(columns.query_id, pa.string()), (columns.doc_id, pa.string()), (columns.retrieval_score, pa.float64())]
    )


def texts_of(columns: Columns) -> set[str]:
    """Columns of texts, which are not looked at in a run."""
    return {columns.query, columns.text, columns.title}


def run_layout(schema: pa.Schema, columns: Columns, keep: Sequence[str]) -> tuple[Layout | None, list[str]]:
    """Decide how to read a run with this schema, as `layout_of` does; texts in it are not looked at."""
    ids = [field for field in schema if field.name not in texts_of(columns)]
    nothing = [pa.field(columns.query, pa.string()), pa.field(columns.text, pa.string())]
    return layout_of(pa.schema([*ids, *nothing]), columns.model_copy(update={"candidates": ""}), keep, None)


def find_runs(file: InputFile, layout: Layout) -> Runs:
    """Find where each query's lines are in a TREC file; `start` and `rows` count lines that are not blank.

    Raises:
        InputError, StorageError: as `storage_errors` says; so do all functions here.
    """
    parts = []
    for chunk in in_chunks(read_lines(file, 0, 0)):
        ids = [line.removeprefix(_MARK).split(None, 1)[0].decode(errors="replace") for _, _, line in chunk]
        offsets = np.array([offset for _, offset, _ in chunk], dtype=np.int64)
        ones = np.ones(len(chunk), dtype=np.int64)
        parts.append(runs_of(pa.array(ids, layout.query_id_type), ones, chunk[0][0], offsets))
    return join(parts)


def read_rows(
    file: InputFile, layout: Layout, source: int, lines: Lines, *, checked: bool = False
) -> Iterator[pa.Table]:
    """Yield rows of a run in canonical form, a batch at a time, in order; `query` and `document` are empty.

    Args:
        file: in either format.
        layout: what `run_layout` said.
        source: index of the file.
        lines: which rows; the offset is for TREC files.
        checked: of Parquet, as `parquet.read_batches` says.
    """
    if file.format == "trec":
        yield from _read_trec(file, layout, source, lines)
        return
    names = layout.columns
    wanted = {names.query_id, names.doc_id, *(kept.name for kept in layout.keep)}
    wanted |= {names.retrieval_score} if layout.retrieval_score else set()
    for row, batch in read_batches(file, Chosen(frozenset(wanted)), lines.start, lines.stop, checked=checked):
        rows = np.arange(row, row + len(batch), dtype=np.int64)
        yield _canonical(pa.Table.from_batches([batch]), rows, layout, source)


def _read_trec(file: InputFile, layout: Layout, source: int, lines: Lines) -> Iterator[pa.Table]:
    schema = trec_schema(layout.columns)
    for chunk in in_chunks(read_lines(file, lines.start, lines.offset, lines.stop)):
        values, problems = zip(*(_values(line) for _, _, line in chunk), strict=True)
        columns = [pa.array(column, kind) for column, kind in zip(zip(*values, strict=True), schema.types, strict=True)]
        rows = np.array([number for number, _, _ in chunk], dtype=np.int64)
        yield _canonical(pa.table(columns, schema=schema), rows, layout, source, problems)


def _values(line: bytes) -> tuple[tuple[str | None, str | None, float | None], Problem]:
    """Query, document and score of a line, and what is wrong with it."""
    try:
        fields = line.removeprefix(_MARK).decode().split()
    except UnicodeDecodeError:
        return (None, None, None), ("invalid_unicode", "the line is not valid Unicode (UTF-8)")
    found = parse_line(fields)
    if isinstance(found, str):
        return (fields[0], None, None), ("invalid_line", found)
    query_id, doc_id, _, score = found
    return (query_id, doc_id, score), None


def _canonical(
    table: pa.Table, rows: NDArray[np.int64], layout: Layout, source: int, problems: Sequence[Problem] = ()
) -> pa.Table:
    for name in (layout.columns.query, layout.columns.text):
        table = table.append_column(name, pa.repeat(pa.scalar("", pa.large_string()), len(table)))
    return canonical(table, table, rows, layout, source, problems or None)
