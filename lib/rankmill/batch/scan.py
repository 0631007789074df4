"""Looks at the whole input before anything else starts: every file readable, one layout, and where the queries lie."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from rankmill.errors import InputError, StorageError
from rankmill.settings.rerank import Columns
from rankmill.tables import jsonl, parquet
from rankmill.tables.locate import InputFile, find_files
from rankmill.tables.runs import Runs
from rankmill.tables.schema import Layout, differences, layout_of

_THREADS = 16  # footers are small and far away: the wait is latency
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
    problems = [f"{file.uri}: {look}" for file, look in zip(files, looks, strict=True) if isinstance(look, str)]
    layouts: list[Layout] = []
    total = 0
    for file, look in zip(files, looks, strict=True):
        if isinstance(look, str):
            continue
        schema, size = look
        layout, found = layout_of(schema, columns, keep, template)
        problems += [f"{file.uri}: {problem}" for problem in found]
        total += size
        if layout is not None:
            layouts.append(layout)
            problems += [f"{file.uri} differs from {files[0].uri}: {d}" for d in differences(layouts[0], layout)]
    if problems:
        raise InputError(f"--input {pattern} cannot be used; nothing was written.", problems[:50])
    return Inspected(files, layouts[0], total)


def find_runs(file: InputFile, layout: Layout) -> Runs:
    """Find where each query's rows lie in a file.

    Raises:
        InputError: the file is damaged.
    """
    try:
        return parquet.find_runs(file, layout) if file.format == "parquet" else jsonl.find_runs(file, layout)
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        raise InputError(f"{file.uri} cannot be read: {_first_line(error)}") from error


def _look(file: InputFile) -> tuple[pa.Schema, int] | str:
    """Schema and uncompressed bytes of a file, or the sentence that says why it cannot be read."""
    if file.size == 0:
        return "it is empty (0 bytes)"
    reader: Callable[[InputFile], tuple[pa.Schema, int]] = _look_parquet if file.format == "parquet" else _look_jsonl
    try:
        return reader(file)
    except PermissionError as error:
        raise StorageError(f"{file.uri}: no permission to read it ({error}).") from error
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        return f"it cannot be read: {_first_line(error)}"


def _look_parquet(file: InputFile) -> tuple[pa.Schema, int]:
    footer = parquet.read_footer(file)
    if footer.rows == 0:
        raise ValueError("it has no rows")
    return footer.schema, footer.uncompressed_bytes


def _look_jsonl(file: InputFile) -> tuple[pa.Schema, int]:
    factor = _TEXT_PER_COMPRESSED_BYTE if file.uri.lower().endswith(".gz") else 1
    return jsonl.sample_schema(file), file.size * factor


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
