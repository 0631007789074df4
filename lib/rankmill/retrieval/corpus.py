"""Reads a corpus in batches, from any document on: Parquet, or JSONL(.gz) as BEIR has it (`_id`, `title`, `text`)."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt

from rankmill.errors import InputError
from rankmill.settings.storage import StorageSettings
from rankmill.tables.complete import complete, open_parquet
from rankmill.tables.errors import storage_errors
from rankmill.tables.jsonl import sample_schema
from rankmill.tables.lines import read_lines
from rankmill.tables.locate import InputFile, absolute, format_of, list_files, open_file

ID_NAMES = ("doc_id", "_id")
"""Where an id is looked for, unless it is named."""
OWN_NAMES = ("doc_id", "title", "text", "searched", "vector")
"""Columns of an index that are ours."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*", re.ASCII)
_READ_ROWS = 1_000
_BATCH_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documents in files, in an order that stays the same."""

    uri: str
    files: tuple[InputFile, ...]
    columns: tuple[str, str, str]
    """Id, title (empty where there is none) and text, as the files call them."""
    schema: pa.Schema
    """Of what `read` gives: `doc_id` (string or int64), `title`, `text`, and what is kept."""

    @property
    def digest(self) -> str:
        """Changes with any file: 64 hexadecimal digits."""
        lines = [f"{file.uri}\t{file.size}\t{file.version}\n" for file in self.files]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def read(self, skip: int, rows: int) -> Iterator[pa.Table]:
        """Read documents in order, `rows` at a time, fewer where they are more than 64 MiB.

        Args:
            skip: documents to leave out at the beginning.
            rows: at least 1.

        Raises:
            InputError: naming the file and the document that has no id, or a value of another type.
            StorageError: the store refused or cannot be reached.
        """
        waiting: list[pa.Table] = []
        count = size = 0
        for table in _documents(self, skip):
            for start in range(0, table.num_rows, rows):
                piece = table.slice(start, rows)
                if waiting and (count + piece.num_rows > rows or size + piece.nbytes > _BATCH_BYTES):
                    yield pa.concat_tables(waiting)
                    waiting, count, size = [], 0, 0
                waiting.append(piece)
                count, size = count + piece.num_rows, size + piece.nbytes
        if waiting:
            yield pa.concat_tables(waiting)


def open_corpus(
    uri: str,
    storage: StorageSettings,
    *,
    doc_id: str | None = None,
    title: str = "title",
    text: str = "text",
    keep: tuple[str, ...] = (),
) -> Corpus:
    """List a corpus' files and check their columns, by footers or first lines.

    Args:
        uri: file, folder or glob.
        storage: where an object store is and who signs.
        doc_id: the column of ids; None looks for `doc_id`, then `_id`.
        title: that of titles; there may be none.
        text: that of texts.
        keep: further ones to carry along: strings, numbers or booleans.

    Raises:
        InputError: no files, files of an unknown kind, or a column that is missing or of an unusable type.
        StorageError: the store refused or cannot be reached.
    """
    files = list_files(uri, f"--corpus {uri}", storage)
    unknown = [file.uri for file in files if format_of(file.uri) is None]
    if unknown or not files:
        raise InputError(f"--corpus {uri}: it must be Parquet or JSONL(.gz) files, and some.", unknown[:20])
    schemas = {file.uri: _schema(file) for file in files}
    first = schemas[files[0].uri]
    found_id = doc_id or next((name for name in ID_NAMES if name in first.names), ID_NAMES[0])
    found_title = title if title in first.names else ""
    names = {"doc_id": found_id, "title": found_title, "text": text} | {name: name for name in keep}
    problems = [_problem(name, wanted, first) for name, wanted in names.items() if wanted]
    problems += [f"{name} cannot be kept: {_naming(name)}" for name in keep if _naming(name)]
    if any(problems):
        raise InputError(
            f"{files[0].uri}: its columns cannot be indexed; it has {', '.join(first.names)}. Name them with "
            "--columns.doc-id, --columns.title, --columns.text and --keep.",
            [problem for problem in problems if problem],
        )
    schema = pa.schema(
        [(name, _stored(first.field(wanted).type) if wanted else pa.string()) for name, wanted in names.items()]
    )
    for other, found in schemas.items():
        lacking = [wanted for wanted in names.values() if wanted and wanted not in found.names]
        if lacking and format_of(other) == "parquet":
            raise InputError(f"{other} lacks columns that {files[0].uri} has.", lacking)
    return Corpus(absolute(uri), files, (found_id, found_title, text), schema)


def _schema(file: InputFile) -> pa.Schema:
    if file.format == "jsonl":
        return sample_schema(file)
    with storage_errors(file.uri), open_file(file) as handle:
        return pq.read_schema(handle)


def _problem(name: str, column: str, schema: pa.Schema) -> str | None:
    if column not in schema.names:
        return f"{column} is not there"
    kind = _stored(schema.field(column).type)
    if kind is None or (name in {"title", "text"} and not pt.is_string(kind)):
        return f"{column} is {schema.field(column).type}"
    if name == "doc_id" and not (pt.is_string(kind) or pt.is_int64(kind)):
        return f"{column} is {schema.field(column).type}; ids are strings or integers"
    return None


def _naming(name: str) -> str | None:
    if name in OWN_NAMES:
        return f"the index has columns {', '.join(OWN_NAMES)} of its own"
    return None if _NAME.fullmatch(name) else "its name must be letters, digits and _, a letter first"


def _stored(kind: pa.DataType) -> pa.DataType | None:
    """The type that an index keeps a column in; None where it cannot."""
    if pt.is_dictionary(kind):
        kind = kind.value_type
    if pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind) or pt.is_null(kind):
        return pa.string()
    if pt.is_integer(kind) and not pt.is_uint64(kind):
        return pa.int64()
    if pt.is_floating(kind):
        return pa.float64()
    return pa.bool_() if pt.is_boolean(kind) else None


def _documents(corpus: Corpus, skip: int) -> Iterator[pa.Table]:
    """Documents in small tables, with our names; the first `skip` are read as cheaply as can be."""
    for file in corpus.files:
        number = 0  # of the document in its file, from 0
        for count, table in _rows(file, corpus, skip):
            if table is not None and skip < count:
                kept = table.slice(skip)
                yield _checked(kept, file.uri, number + skip)
            number += count
            skip = max(0, skip - count)


def _rows(file: InputFile, corpus: Corpus, skip: int) -> Iterator[tuple[int, pa.Table | None]]:
    """How many documents come next in a file, and these; None where all of them are to be skipped."""
    if file.format == "parquet":
        with storage_errors(file.uri), open_file(file) as raw:
            yield from _parquet_rows(file, raw, corpus, skip)
    else:
        yield from _jsonl_rows(file, corpus, skip)


def _parquet_rows(file: InputFile, raw: IO[bytes], corpus: Corpus, skip: int) -> Iterator[tuple[int, pa.Table | None]]:
    parquet = open_parquet(file, raw)
    wanted = _wanted(corpus)
    columns = sorted(set(wanted.values()))
    for group in range(parquet.num_row_groups):
        rows = parquet.metadata.row_group(group).num_rows
        if rows <= skip:
            yield rows, None
            skip -= rows
            continue
        batches = parquet.iter_batches(_READ_ROWS, row_groups=[group], columns=columns)
        for batch in complete(batches, rows, file, [group]):
            table = pa.table({name: batch.column(column) for name, column in wanted.items()})
            if "title" not in wanted:
                table = table.append_column("title", pa.nulls(table.num_rows, pa.string()))
            yield table.num_rows, table.select(corpus.schema.names).cast(corpus.schema)
            skip = max(0, skip - table.num_rows)


def _jsonl_rows(file: InputFile, corpus: Corpus, skip: int) -> Iterator[tuple[int, pa.Table | None]]:
    wanted = _wanted(corpus)
    rows: list[dict[str, Any]] = []
    for number, _, line in read_lines(file, 0, 0):
        if number < skip:
            yield 1, None
            continue
        try:
            value = orjson.loads(line)
            row = {name: value.get(column) for name, column in wanted.items()}
            for field in corpus.schema:
                pa.scalar(row.get(field.name), field.type)
        except (ValueError, AttributeError, TypeError, OverflowError) as error:
            raise InputError(
                f"{file.uri}: document {number + 1:,} is no JSON object whose {', '.join(wanted.values())} are "
                f"{', '.join(str(corpus.schema.field(name).type) for name in wanted)} ({type(error).__name__})."
            ) from error
        rows.append(row)
        if len(rows) == _READ_ROWS:
            yield len(rows), pa.Table.from_pylist(rows, corpus.schema)
            rows = []
    if rows:
        yield len(rows), pa.Table.from_pylist(rows, corpus.schema)


def _wanted(corpus: Corpus) -> dict[str, str]:
    """Columns of the files by the names that they get."""
    own = dict(zip(("doc_id", "title", "text"), corpus.columns, strict=True))
    return {name: column for name, column in own.items() if column} | {name: name for name in corpus.schema.names[3:]}


def _checked(table: pa.Table, uri: str, before: int) -> pa.Table:
    """Documents without an id refused; titles and texts that are not there made empty."""
    ids = table["doc_id"]
    if ids.null_count:
        first = ids.is_null().index(True).as_py()
        raise InputError(f"{uri}: document {before + first + 1:,} has no id.")
    for name in ("title", "text"):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].fill_null(""))
    return table
