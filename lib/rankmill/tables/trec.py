"""Runs in TREC's format: one line per result, six columns separated by blanks, `query_id Q0 doc_id rank score tag`.

Files may be local or at any fsspec URI, and compressed when the name ends in `.gz` (also `.bz2`, `.xz`, `.zst`).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, TextIO

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rankmill.errors import InputError
from rankmill.settings.storage import StorageSettings
from rankmill.tables.errors import storage_errors
from rankmill.tables.lines import LINE_BYTES, TooLong
from rankmill.tables.locate import fsspec_options

RUN = pa.schema([("query_id", pa.string()), ("doc_id", pa.string()), ("rank", pa.int32()), ("score", pa.float64())])
"""Columns of `read_run`."""

_MAX_PROBLEMS = 20
_PIECE = 1 << 20  # characters
_RUN_COLUMNS = 6
_MAX_RANK = 2**31 - 1


class Problems:
    """Collects what is wrong with a file, line by line, and refuses the file with all of it."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._lines: list[str] = []
        self._count = 0

    def add(self, line_number: int, sentence: str) -> None:
        """Remember one problem; only the first 20 are kept in words, the rest are counted."""
        self._count += 1
        if len(self._lines) < _MAX_PROBLEMS:
            self._lines.append(f"{self._uri}, line {line_number:,}: {sentence}")

    def refuse(self, expected: str) -> None:
        """Raise InputError when anything was added."""
        if not self._count:
            return
        more = self._count - len(self._lines)
        lines = [*self._lines, f"and {more:,} more"] if more else self._lines
        noun = "line" if self._count == 1 else "lines"
        raise InputError(f"{self._uri} has {self._count:,} unusable {noun}; expected {expected}.", lines)


@contextmanager
def open_text(uri: str, mode: Literal["r", "w"] = "r", storage: StorageSettings | None = None) -> Iterator[TextIO]:
    """A UTF-8 text file (a byte order mark is skipped) at a path or fsspec URI, (de)compressed by its name.

    Raises:
        InputError, StorageError: as `storage_errors` says.
    """
    encoding = "utf-8-sig" if mode == "r" else "utf-8"
    newline = None if mode == "r" else "\n"
    try:
        options = fsspec_options(uri, storage or StorageSettings())
        opener = fsspec.open(uri, f"{mode}t", encoding=encoding, newline=newline, compression="infer", **options)
    except (ValueError, ImportError) as error:  # an unknown protocol, or its package is not installed
        raise InputError(f"{uri} cannot be opened: {error}") from error
    with storage_errors(uri, writing=mode == "w"), opener as handle:
        yield handle


def read_text_lines(uri: str, storage: StorageSettings | None = None) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file that `open_text` opens, blank ones included, each with its number (from 1).

    Raises:
        InputError: a line has more than `LINE_BYTES`.
        InputError, StorageError: as `storage_errors` says.
    """
    with open_text(uri, storage=storage) as handle:
        for number, line in enumerate(iter(partial(handle.readline, LINE_BYTES + 1), ""), start=1):
            size = len(line.encode()) if 4 * len(line) > LINE_BYTES else 0  # a character has up to 4 bytes
            if size > LINE_BYTES:
                while line and not line.endswith("\n"):
                    line = handle.readline(_PIECE)  # noqa: PLW2901 - what is left of it is counted, not kept
                    size += len(line.encode())
                raise TooLong(size, LINE_BYTES).refused(uri, f"{number:,}")
            yield number, line


def read_run(uri: str, storage: StorageSettings | None = None) -> pa.Table:
    """A TREC run, as columns of `RUN`, in file order. The fields `Q0` and `tag` are not kept.

    Args:
        uri: of the run.
        storage: where an object store is and who signs (default: as the environment says).

    Raises:
        InputError: no such file, an empty one, or unusable lines: a number of columns other than 6, a rank that is no
            whole number, a score that is no finite number, a document listed twice for one query. The first 20 are
            named. Or a line of more than 64 MiB.
        StorageError: the file system refused.
    """
    problems = Problems(uri)
    query_ids: list[str] = []
    doc_ids: list[str] = []
    ranks: list[int] = []
    scores: list[float] = []
    first_lines: dict[tuple[str, str], int] = {}
    for number, line in read_text_lines(uri, storage):
        fields = line.split()
        if not fields:
            continue
        parsed = parse_line(fields)
        if isinstance(parsed, str):
            problems.add(number, parsed)
            continue
        query_id, doc_id, rank, score = parsed
        first = first_lines.setdefault((query_id, doc_id), number)
        if first != number:
            problems.add(number, f"document {doc_id!r} was already listed for query {query_id!r} on line {first:,}")
        query_ids.append(query_id)
        doc_ids.append(doc_id)
        ranks.append(rank)
        scores.append(score)
    problems.refuse("a TREC run: query_id Q0 doc_id rank score tag")
    if not query_ids:
        raise InputError(f"{uri} is empty; expected a TREC run: query_id Q0 doc_id rank score tag.")
    return pa.table([query_ids, doc_ids, ranks, scores], schema=RUN)


def parse_line(fields: list[str]) -> tuple[str, str, int, float] | str:
    """Query, document, rank, score; or a sentence that says what is wrong."""
    if len(fields) != _RUN_COLUMNS:
        return f"{len(fields)} columns instead of {_RUN_COLUMNS}"
    query_id, _, doc_id, rank_text, score_text, _ = fields
    try:
        rank = int(rank_text)
    except ValueError:
        return f"the rank is {rank_text!r}, not a whole number"
    if abs(rank) > _MAX_RANK:
        return f"the rank is {rank_text}, beyond {_MAX_RANK:,}"
    try:
        score = float(score_text)
    except ValueError:
        return f"the score is {score_text!r}, not a number"
    if not math.isfinite(score):
        return f"the score is {score_text}, not a finite number"
    return query_id, doc_id, rank, score


def write_run(destination: str | TextIO, table: pa.Table, tag: str) -> int:
    """Write rankings as a TREC run; returns the number of lines.

    Give a path or URI to write a whole file, or an open text handle to add one table after another; the rows of one
    query must then all be in one table. Queries keep the order of their first row; the rows of a query are written by
    rank. A (query, document) pair that occurs twice is written once, at its best rank, and the ranks after it close up:
    evaluation tools refuse duplicates. Such tools order by score and break ties their own way (trec_eval: by document
    id, descending), so that they may see equal scores in another order than `rank` says.

    Args:
        destination: path, fsspec URI (`.gz` compresses), or text handle.
        table: `query_id`, `doc_id` (strings or integers), `rank` (integer, 1 is best), `score` (float).
        tag: name of the run, without whitespace.

    Raises:
        InputError: an id or the tag is empty or contains whitespace, which the format cannot carry. Nothing of this
            table was written then.
    """
    if not tag or len(tag.split()) != 1 or tag != tag.strip():
        raise InputError(f"The tag {tag!r} cannot name a TREC run: it must be one word, without whitespace.")
    check_ids(table)
    if isinstance(destination, str):
        with open_text(destination, "w") as handle:
            return _write(handle, table, tag)
    return _write(destination, table, tag)


def _write(handle: TextIO, table: pa.Table, tag: str) -> int:
    first_rows = pc.index_in(table["query_id"], value_set=pc.unique(table["query_id"])).to_numpy()
    order = np.lexsort((table["rank"].to_numpy(), first_rows))  # stable: equal ranks keep their order
    ordered = table.select(["query_id", "doc_id", "score"]).take(order)
    # 9 digits carry every float32 exactly; float64 needs the 17 that repr knows to shorten.
    digits = ".9g" if pa.types.is_float32(table.schema.field("score").type) else ""
    written = 0
    current: object = None
    seen: set[object] = set()
    columns = (ordered[name].to_pylist() for name in ("query_id", "doc_id", "score"))
    for query_id, doc_id, score in zip(*columns, strict=True):
        if query_id != current:
            current, seen = query_id, set()
        if doc_id in seen:
            continue
        seen.add(doc_id)
        handle.write(f"{query_id} Q0 {doc_id} {len(seen)} {score:{digits}} {tag}\n")
        written += 1
    return written


def check_ids(table: pa.Table) -> None:
    """Refuse ids that a TREC run cannot carry.

    Args:
        table: `query_id` and `doc_id` (strings or integers); other columns do not matter.

    Raises:
        InputError: an id is null, empty or contains whitespace.
    """
    for name in ("query_id", "doc_id"):
        column = table[name]
        if column.null_count:
            raise InputError(f"A TREC run cannot hold a null {name}; there are {column.null_count:,}.")
        if pa.types.is_integer(column.type):
            continue
        # \s of RE2 is ASCII; readers in Python also split at the Unicode blanks and separators listed here.
        unusable = pc.match_substring_regex(column, r"[\s\x{0b}\x{1c}-\x{1f}\x{85}\p{Z}]|^$")
        if bad := column.filter(unusable).to_pylist():
            raise InputError(
                f"{len(bad):,} values of {name} are empty or contain whitespace, which separates the columns of a TREC "
                f"run; the first is {bad[0]!r}. Leave the TREC run out, or replace the blanks in the ids."
            )
