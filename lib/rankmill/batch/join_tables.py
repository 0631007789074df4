"""The tables that a run is joined with: queries and documents by id, in Parquet or JSONL(.gz), as BEIR has them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from rankmill.errors import InputError
from rankmill.settings.rerank import Columns, RerankSettings
from rankmill.tables import jsonl, parquet
from rankmill.tables.canonical import mark
from rankmill.tables.locate import InputFile, format_of, list_files
from rankmill.tables.schema import Layout, layout_of, parse_template

BEIR_ID = "_id"
"""Where an id is looked for that is not under its own name."""

Side = Literal["query", "document"]

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


@dataclass(frozen=True, slots=True)
class TextTable:
    """Texts by id, in files. An id that comes twice has the text that comes first."""

    side: Side
    files: tuple[TextFile, ...]

    @property
    def text_bytes(self) -> int:
        """Uncompressed size."""
        return sum(file.text_bytes for file in self.files)

    @property
    def mean_bytes(self) -> float:
        """Of a text with its id."""
        rows = sum(file.text_bytes / max(file.mean_bytes, 1) for file in self.files)
        return self.text_bytes / max(rows, 1)

    def read(self, number: int, start: int, stop: int) -> Iterator[pa.Table]:
        """Yield rows `start` to `stop` (exclusive) of a file, a batch at a time.

        Columns: `key` (the id as text, so that a number meets its digits), `text`, and the `reason` and `detail` of a
        text that cannot be used. Rows without an id are left out: nothing can ask for them.
        """
        file, layout = self.files[number].file, self.files[number].layout
        if file.format == "parquet":
            tables = parquet.read_rows(file, layout, number, start, stop)
        else:
            tables = jsonl.read_rows(file, layout, number, jsonl.Lines(start, stop, 0))
        for table in tables:
            yield self._by_key(table)

    def _by_key(self, table: pa.Table) -> pa.Table:
        text = table.column("document")
        null = pc.is_in(table.column("reason"), pa.array(["null_query", "null_text"]))
        none = pa.scalar(None, pa.string())
        columns = {"key": as_key(table.column("doc_id")), "text": text}
        columns |= {name: pc.if_else(null, none, table.column(name)) for name in ("reason", "detail")}
        # a null in one column of a template is none in the text
        found = mark(pa.table(columns), pc.and_(null, text.is_null()), f"null_{_TEXT_OF[self.side]}")
        return found.filter(found.column("key").is_valid())


@dataclass(frozen=True, slots=True)
class Texts:
    """What a run is joined with."""

    queries: TextTable
    corpus: TextTable

    @property
    def files(self) -> tuple[InputFile, ...]:
        """All files of both."""
        return tuple(item.file for item in (*self.queries.files, *self.corpus.files))


def as_key(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Ids as they are compared: text, integers as their digits."""
    return ids.cast(pa.large_string())


def open_texts(settings: RerankSettings) -> Texts:
    """List the files of --queries and --corpus and check their columns, by footers or first lines.

    Raises:
        InputError: nothing there, files of another kind, missing or unusable columns; every culprit named.
        StorageError: the store refused or cannot be reached.
    """
    names = settings.columns
    queries = _open(settings, "query", names.query_id, names.query, None)
    return Texts(queries, _open(settings, "document", names.doc_id, names.text, settings.document_template))


def files_of(settings: RerankSettings) -> tuple[InputFile, ...]:
    """The files of --queries and --corpus as they are now; none where the input brings its texts.

    Raises:
        InputError, StorageError: as `list_files` says.
    """
    given = [("--queries", settings.queries), ("--corpus", settings.corpus)]
    return tuple(file for flag, uri in given if uri for file in list_files(uri, f"{flag} {uri}", settings.storage))


def _open(settings: RerankSettings, side: Side, id_name: str, text_name: str, template: str | None) -> TextTable:
    flag, uri = ("--queries", settings.queries) if side == "query" else ("--corpus", settings.corpus)
    name = f"{flag} {uri}"
    files = list_files(str(uri), name, settings.storage)
    unknown = [file.uri for file in files if format_of(file.uri) is None]
    if unknown or not files:
        raise InputError(f"{name}: it must be Parquet or JSONL(.gz) files, and some.", unknown[:_MAX_PROBLEMS])
    with ThreadPoolExecutor(_THREADS) as pool:
        look = partial(
            _look, side=side, columns=settings.columns, id_name=id_name, text_name=text_name, template=template
        )
        looks = list(pool.map(look, files))
    problems = [problem for found in looks if not isinstance(found, TextFile) for problem in found]
    opened = [found for found in looks if isinstance(found, TextFile)]
    if problems:
        raise InputError(f"{name} cannot be used; nothing was written.", problems[:_MAX_PROBLEMS])
    title = any(item.layout.title for item in opened)
    limit = settings.max_text_bytes
    layouts = [replace(item.layout, title=title, max_text_bytes=limit) for item in opened]
    return TextTable(side, tuple(replace(item, layout=layout) for item, layout in zip(opened, layouts, strict=True)))


def _look(
    file: InputFile, side: Side, columns: Columns, id_name: str, text_name: str, template: str | None
) -> TextFile | list[str]:
    """What a file's footer or first lines say, or what is wrong with it."""
    if file.size == 0:
        return [f"{file.uri}: it is empty (0 bytes)."]
    try:
        schema, rows, text_bytes, mean_bytes = _measure(file)
    except InputError as error:
        return [str(error)]
    if id_name not in schema.names and BEIR_ID in schema.names:
        id_name = BEIR_ID
    if side == "query" and text_name not in schema.names and "text" in schema.names:
        text_name = "text"
    named = [part.column for part in parse_template(template)[0] if part.column]
    places = Columns(
        query_id=id_name,
        doc_id=id_name,
        query=named[0] if named else text_name,
        text=text_name,
        title=columns.title if side == "document" else text_name,
        candidates="",
    )
    wanted = {id_name, *places.model_dump().values(), *named} - {columns.retrieval_score}
    layout, problems = layout_of(pa.schema([field for field in schema if field.name in wanted]), places, (), template)
    if layout is None:
        return [f"{file.uri}: {problem}" for problem in dict.fromkeys(problems)]
    if file.format == "jsonl" and side == "document":
        layout = replace(layout, title=layout.with_optional_columns().title)  # it may come late
    return TextFile(file, replace(layout, retrieval_score=False), rows, text_bytes, mean_bytes)


def _measure(file: InputFile) -> tuple[pa.Schema, int, int, float]:
    """Schema, rows (0: not known), bytes of text, and those of a row."""
    if file.format == "parquet":
        footer = parquet.read_footer(file)
        return footer.schema, footer.rows, footer.uncompressed_bytes, footer.uncompressed_bytes / max(footer.rows, 1)
    text_bytes = file.size * (_TEXT_PER_COMPRESSED_BYTE if file.compressed else 1)
    return jsonl.sample_schema(file), 0, text_bytes, jsonl.mean_line_bytes(file)
