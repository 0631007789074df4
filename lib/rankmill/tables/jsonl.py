"""Reads candidates from JSONL(.gz): a sample at plan time, then lines, a chunk at a time."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.types as pt

from rankmill.errors import InputError
from rankmill.tables.canonical import REASONS, Problem, canonical
from rankmill.tables.lines import LINE_BYTES, Line, TooLong, in_chunks, line_limit, read_any_lines
from rankmill.tables.locate import InputFile
from rankmill.tables.runs import Runs, join, runs_of
from rankmill.tables.schema import Layout


@dataclass(frozen=True, slots=True)
class Lines:
    """A range of lines; blank ones are not counted."""

    start: int
    stop: int
    """Number after the last line."""
    offset: int
    """Byte, of the uncompressed file, at which line `start` begins."""


def sample_schema(file: InputFile, limit: int = LINE_BYTES) -> pa.Schema:
    """Infer the schema from the first thousand lines (from fewer where they are more than 8 MiB).

    Args:
        file: what is read.
        limit: bytes that a line may have; longer ones say nothing of the schema.

    Raises:
        InputError: no line, none within the limit, or a first line that is not a JSON object.
        InputError, StorageError: as `storage_errors` says; so do all functions here.
    """
    sample = _sample(file, limit)
    rows = [_parse(line) for _, _, line in sample]
    if rows[0] is None:
        raise InputError(f"{file.uri}: line 1 is not a JSON object: {sample[0][2][:60]!r}")
    try:
        return pa.schema(list(_infer(rows)))
    except RecursionError as error:
        raise InputError(f"{file.uri}: its values are nested too deeply.") from error


def mean_line_bytes(file: InputFile) -> float:
    """Mean length of the lines that `sample_schema` looks at, uncompressed."""
    sample = _sample(file, LINE_BYTES)
    return sum(len(line) for _, _, line in sample) / len(sample)


def _sample(file: InputFile, limit: int) -> list[Line]:
    """The first lines that can be read; one at least."""
    with closing(read_any_lines(file, 0, 0, limit=limit)) as lines:
        found = next(in_chunks(lines), [])
    if not found:
        raise InputError(f"{file.uri}: it has no lines.")
    sample = [(number, offset, line) for number, offset, line in found if not isinstance(line, TooLong)]
    if not sample:
        raise InputError(f"{file.uri}, line 1: {found[0][2]!s}.")
    return sample


def find_runs(file: InputFile, layout: Layout) -> Runs:
    """Find where each query's lines are; `start` and `rows` count lines that are not blank."""
    parts = []
    for chunk in in_chunks(read_any_lines(file, 0, 0, limit=line_limit(layout.max_text_bytes))):
        rows = [_parse(line) for _, _, line in chunk]
        ids = [_id(row, layout) for row in rows]
        pairs = np.array([len(_candidates(row, layout)) for row in rows], dtype=np.int64)
        offsets = np.array([offset for _, offset, _ in chunk], dtype=np.int64)
        parts.append(runs_of(pa.array(ids, layout.query_id_type), pairs, chunk[0][0], offsets))
    return join(parts)


def read_rows(file: InputFile, layout: Layout, source: int, lines: Lines) -> Iterator[pa.Table]:
    """Yield lines in canonical form, a chunk at a time, in order.

    Each candidate is checked by itself: what is wrong with one does not touch the others of its query.
    """
    query_schema, pair_schema = _schemas(layout)
    limit = line_limit(layout.max_text_bytes)
    for chunk in in_chunks(read_any_lines(file, lines.start, lines.offset, lines.stop, limit)):
        queries: list[dict[str, Any]] = []
        pairs: list[dict[str, Any]] = []
        numbers: list[int] = []
        problems: list[Problem] = []
        for number, _, line in chunk:
            row = _parse(line)
            of_line = _problem(line)
            query, of_query = _fit(row or {}, query_schema)
            for candidate, of_form in _candidates(row, layout):
                pair, of_pair = _fit(candidate, pair_schema)
                queries.append(query)
                pairs.append(pair)
                numbers.append(number)
                problems.append(of_line or of_form or of_query or of_pair)
        top = pa.Table.from_pylist(queries, schema=query_schema)
        below = pa.Table.from_pylist(pairs, schema=pair_schema)
        yield canonical(top, below, np.array(numbers, dtype=np.int64), layout, source, problems)


def _problem(line: bytes | TooLong) -> Problem:
    return ("text_too_large", str(line)) if isinstance(line, TooLong) else None


def _parse(line: bytes | TooLong) -> dict[str, Any] | None:
    """Parse a line; None when it is not a JSON object, or was not kept.

    Lone surrogates parse (orjson refuses them) and are rejected later.
    """
    if isinstance(line, TooLong):
        return None
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return None
    return row if isinstance(row, dict) else None


def _candidates(row: dict[str, Any] | None, layout: Layout) -> list[tuple[dict[str, Any], Problem]]:
    """The objects that the pairs of a line are made of, and what is wrong with their form; one at least."""
    if row is None:
        return [({}, ("invalid_json", REASONS["invalid_json"]))]
    if not layout.nested:
        return [(row, None)]
    name = layout.columns.candidates
    found = row.get(name)
    if found is None or found == []:
        return [({}, ("no_candidates", REASONS["no_candidates"]))]
    if not isinstance(found, list):
        return [({}, ("wrong_type", f"{name} is {_json_type(found)}, not a list"))]
    return [_candidate(value) for value in found]


def _candidate(value: Any) -> tuple[dict[str, Any], Problem]:
    if value is None or isinstance(value, dict):
        return value or {}, None
    return {}, ("wrong_type", f"a candidate is {_json_type(value)}, not an object")


def _id(row: dict[str, Any] | None, layout: Layout) -> Any:
    """The query id of a line; None where the line will be rejected."""
    try:
        return _as((row or {}).get(layout.columns.query_id), layout.query_id_type)
    except (TypeError, OverflowError, UnicodeEncodeError):
        return None


def _fit(row: dict[str, Any], schema: pa.Schema) -> tuple[dict[str, Any], Problem]:
    """The values that are of the types they should be, and the first problem with the others."""
    kept: dict[str, Any] = {}
    problem: Problem = None
    for name, kind in zip(schema.names, schema.types, strict=True):
        value = row.get(name)
        try:
            kept[name] = _as(value, kind)
        except UnicodeEncodeError:
            problem = problem or ("invalid_unicode", f"{name} is not valid Unicode (a lone surrogate)")
        except OverflowError:
            problem = problem or ("wrong_type", f"{name} is a number beyond {kind}")
        except TypeError:
            problem = problem or ("wrong_type", f"{name} is {_json_type(value)}, not {kind}")
    return kept, problem


def _as(value: Any, kind: pa.DataType) -> Any:  # noqa: PLR0911 - a return per type
    """A JSON value as one of the type; nothing is cast but whole numbers to floating point.

    Raises:
        TypeError: it is of another type.
        OverflowError: it is a number beyond the type's range.
        UnicodeEncodeError: it holds a lone surrogate.
    """
    if value is None:
        return None
    if isinstance(value, str) and pt.is_string(kind):
        value.encode()
        return value
    if isinstance(value, bool) and pt.is_boolean(kind):
        return value
    if type(value) is int and pt.is_integer(kind):  # not bool, which is an int to Python
        if not -(2**63) <= value < 2**63:  # of an int64, the one integer type that is inferred
            raise OverflowError
        return value
    if type(value) in (int, float) and pt.is_floating(kind):
        return float(value)
    if isinstance(value, list) and pt.is_list(kind):
        return [_as(item, kind.value_type) for item in value]
    if isinstance(value, dict) and pt.is_struct(kind):
        return {field.name: _as(value.get(field.name), field.type) for field in kind}
    raise TypeError


def _infer(values: Sequence[Any]) -> pa.DataType:
    """The type of sampled JSON values; where they mix, that of most of them (the others are rejected when read)."""
    present = [value for value in values if value is not None]
    if not present:
        return pa.null()
    (most, _), *_ = Counter(map(type, present)).most_common(1)
    if most in (int, float):  # one fraction makes a column of fractions
        return pa.float64() if any(type(value) is float for value in present) else pa.int64()
    alike: list[Any] = [value for value in present if type(value) is most]
    if most is list:
        return pa.list_(_infer([item for value in alike for item in value]))
    if most is dict:
        names = dict.fromkeys(name for value in alike for name in value)
        return pa.struct([(name, _infer([value.get(name) for value in alike])) for name in names])
    return pa.string() if most is str else pa.bool_()


def _schemas(layout: Layout) -> tuple[pa.Schema, pa.Schema]:
    """Types that the values of a query must have, and those of a candidate; the same where one line is one pair."""
    names = layout.columns
    query = [(names.query_id, layout.query_id_type), (names.query, pa.string())]
    query += [(kept.name, kept.type) for kept in layout.keep if not kept.per_candidate]
    pair = [(names.doc_id, layout.doc_id_type), *((name, pa.string()) for name in layout.document_columns)]
    pair += [(kept.name, kept.type) for kept in layout.keep if kept.per_candidate]
    if layout.retrieval_score:
        pair.append((names.retrieval_score, pa.float64()))
    return pa.schema(dict(query)), pa.schema(dict(pair))


def _json_type(value: Any) -> str:
    names: dict[type, str] = {dict: "an object", list: "a list"}
    return names.get(type(value), type(value).__name__)
