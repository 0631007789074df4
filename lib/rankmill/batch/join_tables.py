"""The tables that a run is joined with: queries and documents by id, in Parquet or JSONL(.gz), as BEIR has them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from rankmill.batch.plan import Piece
from rankmill.batch.read import Source
from rankmill.errors import DamagedInputError, InputError
from rankmill.settings.rerank import Columns, RerankSettings
from rankmill.tables import jsonl
from rankmill.tables.canonical import mark
from rankmill.tables.footers import read_footer
from rankmill.tables.locate import InputFile, format_of, list_files
from rankmill.tables.schema import KEEP, Kept, Layout, layout_of, parse_template

BEIR_ID = "_id"
"""Where an id is looked for that is not under its own name."""

Side = Literal["query", "document"]

TEXTS = pa.schema(
    [("key", pa.large_string()), ("text", pa.large_string()), ("reason", pa.string()), ("detail", pa.string())]
)
"""Texts by id: `key` is the id as text, `reason` and `detail` say why a text cannot be used. Kept columns come after.

A row without a key stands for what cannot be read: a line, or with --bad-files reject a file; its `detail` says which.
"""

_TEXT_OF = {"query": "query", "document": "text"}  # what a reason calls it
_THREADS = 16  # footers are small and far away: the wait is latency
_MAX_PROBLEMS = 20
_TEXT_PER_COMPRESSED_BYTE = 4


@dataclass(frozen=True, slots=True)
class TextFile:
    """A file of texts by id."""

    file: InputFile
    layout: Layout
    """As of candidates whose query id is the document id: so the readers of candidates read it."""
    rows: int
    """0 where only reading tells (JSONL)."""
    text_bytes: int
    """Uncompressed; an estimate for JSONL.gz."""
    mean_bytes: float
    """Of a row; of JSONL by the first thousand lines."""
    checked: bool = True
    """Whether it carries checksums, or is not read at all."""


@dataclass(frozen=True, slots=True)
class TextTable:
    """Texts by id, in files. An id that comes twice has the text that comes first."""

    side: Side
    files: tuple[TextFile, ...]
    reject_damaged: bool = False
    """Whether what cannot be read is left out, instead of ending the job (--bad-files reject)."""

    @property
    def keep(self) -> tuple[Kept, ...]:
        """Columns that go to the output with each document; the same in all files."""
        return self.files[0].layout.keep

    @property
    def schema(self) -> pa.Schema:
        """`TEXTS`, and the kept columns as canonical tables name them."""
        return pa.schema([*TEXTS, *((KEEP + kept.name, kept.type) for kept in self.keep)])

    @property
    def text_bytes(self) -> int:
        """Uncompressed size."""
        return sum(file.text_bytes for file in self.files)

    @property
    def mean_bytes(self) -> float:
        """Of a text with its id."""
        rows = sum(file.text_bytes / max(file.mean_bytes, 1) for file in self.files)
        return self.text_bytes / max(rows, 1)

    def read(self, number: int, start: int, stop: int, offset: int = 0) -> Iterator[pa.Table]:
        """Yield rows `start` to `stop` (exclusive) of a file by `schema`, a batch at a time.

        Rows without an id are left out: nothing can ask for them. Of lines that cannot be read, which may have had one,
        the first are named.

        Args:
            number: of the file.
            start: first row.
            stop: row after the last; may be beyond the end.
            offset: byte at which row `start` begins (JSONL).

        Raises:
            InputError: the file was replaced.
            DamagedInputError: it cannot be read, time after time.
        """
        item = self.files[number]
        if item.file.problem:
            yield self._unreadable(item.file.problem)
            return
        lost = 0
        try:
            for table in Source(item.layout, (item.file,)).rows(Piece(0, start, stop, offset)):
                yield self._by_key(table)
                for row, detail in _without_id(table):
                    lost += 1
                    if lost <= _MAX_PROBLEMS:
                        place = (
                            f"line {row + 1:,} (without blank ones)" if item.file.format == "jsonl" else f"row {row:,}"
                        )
                        yield self._unreadable(f"{item.file.uri}, {place}: {detail}")
        except DamagedInputError as error:
            if not self.reject_damaged:
                raise
            yield self._unreadable(str(error))
        if lost > _MAX_PROBLEMS:
            yield self._unreadable(f"{item.file.uri}: {lost - _MAX_PROBLEMS:,} more like these")

    def _by_key(self, table: pa.Table) -> pa.Table:
        text = table.column("document")
        null = pc.is_in(table.column("reason"), pa.array(["null_query", "null_text"]))
        none = pa.scalar(None, pa.string())
        columns = {"key": as_key(table.column("doc_id")), "text": text}
        columns |= {name: pc.if_else(null, none, table.column(name)) for name in ("reason", "detail")}
        columns |= {KEEP + kept.name: table.column(KEEP + kept.name) for kept in self.keep}
        # a null in one column of a template is none in the text
        found = mark(pa.table(columns), pc.and_(null, text.is_null()), f"null_{_TEXT_OF[self.side]}")
        return found.filter(found.column("key").is_valid())

    def _unreadable(self, detail: str) -> pa.Table:
        """The row that stands for texts that cannot be read."""
        return pa.Table.from_pylist([{"detail": detail}], schema=self.schema)


@dataclass(frozen=True, slots=True)
class Texts:
    """What a run is joined with."""

    queries: TextTable
    corpus: TextTable

    @property
    def files(self) -> tuple[InputFile, ...]:
        """All files of both."""
        return tuple(item.file for item in (*self.queries.files, *self.corpus.files))


def _without_id(table: pa.Table) -> Iterator[tuple[int, str]]:
    """Row and detail of the rows of a canonical table that cannot be read, not even their id."""
    bad = pc.is_in(table.column("reason"), pa.array(["text_too_large", "invalid_json"]))
    rows = table.filter(pc.and_(bad, table.column("doc_id").is_null()))
    yield from zip(rows.column("row").to_pylist(), rows.column("detail").to_pylist(), strict=True)


def as_key(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids as they are compared: text, integers as their digits."""
    return ids.cast(pa.large_string())


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is looked for in each file of a table."""

    side: Side
    columns: Columns
    id: str
    text: str
    template: str | None = None
    keep: tuple[str, ...] = ()


def open_texts(settings: RerankSettings, keep: tuple[str, ...] = ()) -> Texts:
    """List the files of --queries and --corpus and check their columns, by footers or first lines.

    Args:
        settings: of the job.
        keep: columns of the corpus that go to the output.

    Raises:
        InputError: nothing there, files of another kind, missing or unusable columns; every culprit named.
        StorageError: the store refused or cannot be reached.
    """
    names = settings.columns
    queries = _Wanted("query", names, names.query_id, names.query)
    documents = _Wanted("document", names, names.doc_id, names.text, settings.document_template, keep)
    return Texts(_open(settings, queries), _open(settings, documents))


def files_of(settings: RerankSettings) -> tuple[InputFile, ...]:
    """The files of --queries and --corpus as they are now; none where the input brings its texts.

    Raises:
        InputError, StorageError: as `list_files` says.
    """
    given = [("--queries", settings.queries), ("--corpus", settings.corpus)]
    return tuple(file for flag, uri in given if uri for file in list_files(uri, f"{flag} {uri}", settings.storage))


def _open(settings: RerankSettings, wanted: _Wanted) -> TextTable:
    flag, uri = ("--queries", settings.queries) if wanted.side == "query" else ("--corpus", settings.corpus)
    name = f"{flag} {uri}"
    files = list_files(str(uri), name, settings.storage)
    unknown = [file.uri for file in files if format_of(file.uri) is None]
    if unknown or not files:
        raise InputError(f"{name}: it must be Parquet or JSONL(.gz) files, and some.", unknown[:_MAX_PROBLEMS])
    with ThreadPoolExecutor(_THREADS) as pool:
        looks: list[TextFile | list[str] | str] = list(pool.map(partial(_look, wanted=wanted), files))
    opened = [found for found in looks if isinstance(found, TextFile)]
    problems = [problem for found in looks if isinstance(found, list) for problem in found]
    problems += [
        f"{item.file.uri}: {mine.name} is {mine.type}, and {first.type} in {opened[0].file.uri}"
        for item in opened
        for mine, first in zip(item.layout.keep, opened[0].layout.keep, strict=True)
        if mine != first
    ]
    broken = [found for found in looks if isinstance(found, str)]
    reject_damaged = settings.bad_files == "reject"
    if problems or not opened or (broken and not reject_damaged):
        raise InputError(f"{name} cannot be used; nothing was written.", [*broken, *problems][:_MAX_PROBLEMS])
    looked = [(file, look) for file, look in zip(files, looks, strict=True) if not isinstance(look, list)]
    layout = replace(
        opened[0].layout, title=any(item.layout.title for item in opened), max_text_bytes=settings.max_text_bytes
    )
    return TextTable(wanted.side, tuple(_as_all(look, file, layout) for file, look in looked), reject_damaged)


def _as_all(look: TextFile | str, file: InputFile, layout: Layout) -> TextFile:
    """A file with what its table has decided for all; with the reason, one that cannot be read."""
    if isinstance(look, str):
        return TextFile(replace(file, problem=look), layout, 0, 0, 0.0)
    return replace(look, layout=replace(look.layout, title=layout.title, max_text_bytes=layout.max_text_bytes))


def _look(file: InputFile, wanted: _Wanted) -> TextFile | list[str] | str:
    """What a file's footer or first lines say, what is wrong with its columns, or why it cannot be read at all."""
    if file.size == 0:
        return f"{file.uri}: it is empty (0 bytes)."
    try:
        schema, rows, text_bytes, mean_bytes, checked = _measure(file)
    except InputError as error:
        return str(error)
    side, columns = wanted.side, wanted.columns
    id_name = BEIR_ID if wanted.id not in schema.names and BEIR_ID in schema.names else wanted.id
    plain = side == "query" and wanted.text not in schema.names and "text" in schema.names
    text_name = "text" if plain else wanted.text
    named = [part.column for part in parse_template(wanted.template)[0] if part.column]
    places = Columns(
        query_id=id_name,
        doc_id=id_name,
        query=named[0] if named else text_name,
        text=text_name,
        title=columns.title if side == "document" else text_name,
        candidates="",
    )
    used = {id_name, *places.model_dump().values(), *named} - {columns.retrieval_score} | {*wanted.keep}
    table = pa.schema([field for field in schema if field.name in used])
    layout, problems = layout_of(table, places, wanted.keep, wanted.template)
    if layout is None:
        return [f"{file.uri}: {problem}" for problem in dict.fromkeys(problems)]
    if file.format == "jsonl" and side == "document":
        layout = replace(layout, title=layout.with_optional_columns().title)  # it may come late
    return TextFile(file, replace(layout, retrieval_score=False), rows, text_bytes, mean_bytes, checked)


def _measure(file: InputFile) -> tuple[pa.Schema, int, int, float, bool]:
    """Schema, rows (0: not known), bytes of text, those of a row, and whether there are checksums."""
    if file.format == "parquet":
        footer = read_footer(file)
        size = footer.uncompressed_bytes
        return footer.schema, footer.rows, size, size / max(footer.rows, 1), footer.checked
    text_bytes = file.size * (_TEXT_PER_COMPRESSED_BYTE if file.compressed else 1)
    return jsonl.sample_schema(file), 0, text_bytes, jsonl.mean_line_bytes(file), file.compressed
