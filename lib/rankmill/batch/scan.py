"""Looks at the whole input before anything else starts: every file readable, one layout, and where the queries lie."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa

from rankmill.errors import InputError
from rankmill.settings.rerank import Columns
from rankmill.tables import jsonl, parquet
from rankmill.tables.locate import InputFile, find_files
from rankmill.tables.runs import Runs
from rankmill.tables.schema import Layout, differences, layout_of

_THREADS = 16  # footers are small and far away: the wait is latency
_MAX_PROBLEMS = 50
_TEXT_PER_COMPRESSED_BYTE = 4  # of a JSONL.gz; Parquet says its uncompressed size


@dataclass(frozen=True, slots=True)
class Inspected:
    """What the input looks like from its footers and first lines."""

    files: tuple[InputFile, ...]
    layout: Layout
    text_bytes: int
    """Uncompressed size of all columns; an estimate for JSONL."""


def inspect(pattern: str, columns: Columns, keep: Sequence[str], template: str | None) -> Inspected:
    """Read the schema of every file and decide how to read them.

    Raises:
        InputError: nothing there, unreadable or empty files, missing or unusable columns, files that differ; every
            culprit named.
        StorageError: the store refused or could not be reached.
    """
    files = find_files(pattern)
    with ThreadPoolExecutor(_THREADS) as pool:
        looks = list(pool.map(_look, files))
    problems: list[str] = []
    layouts: list[tuple[InputFile, Layout]] = []
    for file, look in zip(files, looks, strict=True):
        if isinstance(look, str):
            problems.append(look)
            continue
        layout, found = layout_of(look.schema, columns, keep, template)
        problems += [f"{file.uri}: {problem}" for problem in found]
        if layout is not None:
            layouts.append((file, layout.with_optional_columns() if file.format == "jsonl" else layout))
            problems += _differences(layouts[0], layouts[-1])
    refuse(pattern, problems)
    title, score = (any(getattr(layout, name) for _, layout in layouts) for name in ("title", "retrieval_score"))
    return Inspected(
        files=files,
        layout=replace(layouts[0][1], title=title, retrieval_score=score),
        text_bytes=sum(look.text_bytes for look in looks if not isinstance(look, str)),
    )


def refuse(pattern: str, problems: Sequence[str]) -> None:
    """Raise InputError when there are problems, with all of them."""
    if problems:
        more = [f"and {len(problems) - _MAX_PROBLEMS:,} more"] if len(problems) > _MAX_PROBLEMS else []
        message = f"--input {pattern} cannot be used; nothing was written."
        raise InputError(message, [*problems[:_MAX_PROBLEMS], *more])


def find_runs(file: InputFile, layout: Layout) -> Runs | str:
    """Find where each query's rows lie in a file; the sentence that says why it cannot be read if it is damaged.

    Raises:
        StorageError: the store refused or could not be reached.
    """
    try:
        return parquet.find_runs(file, layout) if file.format == "parquet" else jsonl.find_runs(file, layout)
    except InputError as error:
        return str(error)


@dataclass(frozen=True, slots=True)
class _Look:
    """What a file's footer or first lines say."""

    schema: pa.Schema
    text_bytes: int


def _look(file: InputFile) -> _Look | str:
    """What a file says of itself, or the sentence that says why it cannot be read."""
    if file.size == 0:
        return f"{file.uri}: it is empty (0 bytes)."
    try:
        if file.format == "parquet":
            footer = parquet.read_footer(file)
            return _Look(footer.schema, footer.uncompressed_bytes) if footer.rows else f"{file.uri}: it has no rows."
        factor = _TEXT_PER_COMPRESSED_BYTE if file.compressed else 1
        return _Look(jsonl.sample_schema(file), file.size * factor)
    except InputError as error:
        return str(error)


def _differences(first: tuple[InputFile, Layout], other: tuple[InputFile, Layout]) -> list[str]:
    (one, here), (two, there) = first, other
    if one.format != two.format:  # JSONL has every optional column, and Parquet is read as if it had
        there = replace(there, title=here.title, retrieval_score=here.retrieval_score)
    return [f"{two.uri} differs from {one.uri}: {difference}" for difference in differences(here, there)]
