"""Reads candidates from JSONL(.gz): a sample at plan time, then lines, a chunk at a time."""

import gzip
import io
import json
from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from rankmill.tables.canonical import REASONS, from_batch, mark
from rankmill.tables.locate import InputFile, open_input
from rankmill.tables.runs import Runs, join, runs_of
from rankmill.tables.schema import Layout

_CHUNK_LINES = 1024
_SAMPLE_LINES = 1000
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Lines:
    """A range of lines; blank ones are not counted."""

    start: int
    stop: int
    """Number after the last line."""
    offset: int
    """Byte, of the uncompressed file, at which line `start` begins."""


def sample_schema(file: InputFile) -> pa.Schema:
    """Infer the schema from the first thousand lines.

    Raises:
        ValueError: no line, or a first line that is not a JSON object; the sentence says which.
    """
    rows: list[dict[str, Any]] = []
    with closing(_lines(file, 0, 0)) as lines:
        for number, _, line in islice(lines, _SAMPLE_LINES):
            parsed = _parse(line)
            if isinstance(parsed, dict):
                rows.append(parsed)
            elif not rows:
                raise ValueError(f"line {number + 1} is not a JSON object: {line[:60]!r}")
    if not rows:
        raise ValueError("it has no lines")
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.schema([(name, _infer([row.get(name) for row in rows])) for name in names])


def find_runs(file: InputFile, layout: Layout) -> Runs:
    """Find where each query's lines are; `start` and `rows` count lines that are not blank."""
    names = layout.columns
    parts = []
    for chunk in _chunks(_lines(file, 0, 0)):
        parsed = [_parse(line) for _, _, line in chunk]
        ids = [row.get(names.query_id) if isinstance(row, dict) else None for row in parsed]
        pairs = np.ones(len(chunk), dtype=np.int64)
        if layout.nested:
            pairs = np.array([_pairs_in(row, names.candidates) for row in parsed], dtype=np.int64)
        offsets = np.array([offset for _, offset, _ in chunk], dtype=np.int64)
        parts.append(runs_of(_id_array(ids, layout.query_id_type), pairs, chunk[0][0], offsets))
    return join(parts)


def read_rows(file: InputFile, layout: Layout, source: int, lines: Lines) -> Iterator[pa.Table]:
    """Yield lines in canonical form, a chunk at a time, in order."""
    schema = _batch_schema(layout)
    for chunk in _chunks(_lines(file, lines.start, lines.offset, lines.stop)):
        rows, problems = [], []
        for _, _, line in chunk:
            row, reason, detail = _checked(_parse(line), schema)
            rows.append(row)
            problems.append((reason, detail))
        batch = pa.RecordBatch.from_pylist(rows, schema=schema)
        table = from_batch(batch, layout, source, chunk[0][0])
        yield _mark_lines(table, problems, chunk[0][0])


def _lines(file: InputFile, start: int, offset: int, stop: int | None = None) -> Generator[tuple[int, int, bytes]]:
    """Yield (line number without blank lines, byte offset, line)."""
    number, position = start, offset
    with ExitStack() as stack:
        stream: Any = stack.enter_context(open_input(file.uri))
        if file.uri.lower().endswith(".gz"):
            stream = stack.enter_context(gzip.GzipFile(fileobj=stream))
        stream.seek(offset)
        for line in stack.enter_context(io.BufferedReader(stream, buffer_size=_BUFFER_BYTES)):
            if line.strip():
                if number == stop:
                    return
                yield number, position, line
                number += 1
            position += len(line)


def _chunks(lines: Iterable[tuple[int, int, bytes]]) -> Iterator[list[tuple[int, int, bytes]]]:
    chunk: list[tuple[int, int, bytes]] = []
    for line in lines:
        chunk.append(line)
        if len(chunk) == _CHUNK_LINES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _parse(line: bytes) -> Any:
    """Parse a line; None when it is not JSON. Lone surrogates parse (orjson refuses them) and are rejected later."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            return json.loads(line)
        except (ValueError, RecursionError):
            return None


def _pairs_in(row: Any, candidates: str) -> int:
    """Pairs that a nested line will give; one for a line that will be rejected."""
    values = row.get(candidates) if isinstance(row, dict) else None
    return len(values) if isinstance(values, list) else 1


def _checked(row: Any, schema: pa.Schema) -> tuple[dict[str, Any], str | None, str | None]:
    """Keep a row's values that fit the schema; the rest become null, with the reason why the row cannot be scored."""
    if not isinstance(row, dict):
        return {}, "invalid_json", REASONS["invalid_json"]
    kept: dict[str, Any] = {}
    for field in schema:
        value = row.get(field.name)
        if value is None:
            continue
        try:
            pa.array([value], field.type)
        except UnicodeEncodeError:
            return _ids_only(kept), "invalid_unicode", f"{field.name} is not valid Unicode (a lone surrogate)"
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            shown = "an object" if isinstance(value, dict) else f"{type(value).__name__}"
            return _ids_only(kept), "wrong_type", f"{field.name} is {shown}, not {field.type}"
        kept[field.name] = value
    return kept, None, None


def _ids_only(kept: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kept.items() if not isinstance(value, list)}


def _mark_lines(table: pa.Table, problems: list[tuple[str | None, str | None]], first_line: int) -> pa.Table:
    """Let a line's own problem win over the nulls that it left behind."""
    if not any(reason for reason, _ in problems):
        return table
    lines = table.column("row").to_numpy() - first_line
    names = [problems[line][0] for line in lines]
    details = [problems[line][1] for line in lines]
    own = pa.array([name is not None for name in names])
    empty = pa.nulls(len(table), pa.string())
    for column in ("reason", "detail"):
        index = table.schema.get_field_index(column)
        old = table.column(column).combine_chunks()
        table = table.set_column(index, column, pa.compute.if_else(own, empty, old))
    for reason in sorted({name for name in names if name}):
        for detail in sorted({d for n, d in zip(names, details, strict=True) if n == reason and d}):
            here = pa.array([n == reason and d == detail for n, d in zip(names, details, strict=True)])
            table = mark(table, here, reason, detail)
    return table


def _id_array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Ids as an array; those of another type are null here and rejected when they are read."""
    integer = pa.types.is_integer(kind)
    fits = [isinstance(v, int) and not isinstance(v, bool) if integer else isinstance(v, str) for v in values]
    kept = [value if fit else None for value, fit in zip(values, fits, strict=True)]
    if integer:
        return pa.array(kept, kind)
    return pa.array([v if v is None else v.encode("utf-8", "surrogatepass") for v in kept], pa.large_binary())


def _batch_schema(layout: Layout) -> pa.Schema:
    """Types that the columns of a line must have."""
    names = layout.columns
    pairs = [(names.doc_id, layout.doc_id_type), *((name, pa.string()) for name in layout.document_columns)]
    if layout.retrieval_score:
        pairs.append((names.retrieval_score, pa.float64()))
    pairs += [(kept.name, kept.type) for kept in layout.keep if kept.per_candidate or not layout.nested]
    top = [(names.query_id, layout.query_id_type), (names.query, pa.string())]
    if not layout.nested:
        return pa.schema(dict([*top, *pairs]))
    top += [(kept.name, kept.type) for kept in layout.keep if not kept.per_candidate]
    return pa.schema(dict([*top, (names.candidates, pa.list_(pa.struct(dict(pairs))))]))


def _infer(values: list[Any]) -> pa.DataType:
    """Type of a column from sampled values; where they mix types, that of most of them (the others are rejected)."""
    readable = [value for value in values if value is not None and not _has_surrogate(value)]
    try:
        return pa.array(readable).type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        most, _ = Counter(map(type, readable)).most_common(1)[0]
        return pa.array([value for value in readable if type(value) is most]).type


def _has_surrogate(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
