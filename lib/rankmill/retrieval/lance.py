"""First stage on an embedded LanceDB table: a local folder or an object store, no server.

Full-text scores are Lance's BM25. Vectors are compared by their inner product, one by one up to
`lance_build.VECTOR_INDEX_ROWS` documents, by an index beyond.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pyarrow as pa

from rankmill.errors import InputError
from rankmill.retrieval.filters import Compare, IsNull, Like, OneOf, Value, parse, render
from rankmill.retrieval.fusion import both, fuse
from rankmill.retrieval.lance_table import (
    WHOLE,
    connect,
    is_whole,
    kinds,
    lance_errors,
    not_whole,
    open_table,
    read_manifest,
)
from rankmill.retrieval.manifest import Manifest, refuse_other_model
from rankmill.retrieval.retriever import Embed, Found, Mode, modes_with, no_such_mode
from rankmill.settings.storage import StorageSettings

if TYPE_CHECKING:
    from lancedb.table import AsyncTable

_PROBED = 50
_REFINED = 10
"""Of an approximate search: parts looked into, and how many times more candidates are compared exactly."""
_SCORE = "_first_stage"  # kept columns begin with a letter
_ENVIRONMENT = StorageSettings()


class LanceRetriever:
    """Searches an index that `rankmill index` built; see `Retriever`. `open_lance` makes it.

    Args:
        table: at its whole version.
        uri: where it is, for messages.
        manifest: what it was made of.
        schema: its columns.
        embed: queries to vectors, by the model that embedded the documents; None can do full-text search only.
    """

    def __init__(
        self, table: "AsyncTable", uri: str, manifest: Manifest, schema: pa.Schema, embed: Embed | None
    ) -> None:
        self.manifest = manifest
        self._table = table
        self._uri = uri
        self._embed = embed
        self._kinds = kinds(schema)
        self._fetched = [name for name in schema.names if name not in {"searched", "vector"}]

    @property
    def modes(self) -> tuple[Mode, ...]:
        """See `Retriever`."""
        return modes_with(self._embed)

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Retriever`."""
        return tuple(self._kinds)

    async def search(self, query: str, k: int, mode: Mode, filter: str | None = None) -> Found:  # noqa: A002
        """See `Retriever`; among equal scores of one list, the smaller id comes first."""
        if mode not in self.modes:
            raise no_such_mode(mode, self.modes)
        where = None if filter is None else render(parse(filter, self._kinds), _sql)
        if mode == "sparse":
            return _found(await self._sparse(query, k, where))
        if mode == "dense":
            return _found(await self._dense(query, k, where))
        return _found(_fused(await both(self._sparse(query, k, where), self._dense(query, k, where)), k))

    def within(self, seconds: float) -> Self:  # noqa: ARG002 - it is here
        """See `Retriever`."""
        return self

    def close(self) -> None:
        """See `Retriever`."""
        self._table.close()  # type: ignore[no-untyped-call]

    async def _sparse(self, query: str, k: int, where: str | None) -> pa.Table:
        from lancedb.query import MatchQuery  # noqa: PLC0415 - an extra

        # its other arguments have defaults that only pydantic sees
        words = MatchQuery(query, "searched")  # type: ignore[call-arg]
        search = self._table.query().nearest_to_text(words)
        return await self._rows(search, k, where, "_score")

    async def _dense(self, query: str, k: int, where: str | None) -> pa.Table:
        if self._embed is None:
            raise no_such_mode("dense", self.modes)
        (vector,) = await asyncio.to_thread(self._embed, [query])
        search = self._table.query().nearest_to(vector).distance_type("dot").nprobes(_PROBED).refine_factor(_REFINED)
        table = await self._rows(search, k, where, "_distance")
        return _with_scores(table, [1.0 - distance for distance in table[_SCORE].to_pylist()])

    async def _rows(self, search: Any, k: int, where: str | None, score: str) -> pa.Table:
        if where is not None:
            search = search.where(where)  # before the search, so that k documents come out where there are k
        with lance_errors(self._uri):
            rows: pa.Table = await search.select([*self._fetched, score]).limit(k).to_arrow()
        table = rows.rename_columns([_SCORE if name == score else name for name in rows.column_names])
        table = _with_scores(table, table[_SCORE].to_pylist())
        best_first = "descending" if score == "_score" else "ascending"
        return table.select([*self._fetched, _SCORE]).sort_by([(_SCORE, best_first), ("doc_id", "ascending")])


async def open_lance(
    uri: str,
    storage: StorageSettings = _ENVIRONMENT,
    embed: Embed | None = None,
    fingerprint: str | None = None,
) -> LanceRetriever:
    """Open an index for searching.

    Args:
        uri: a folder, local or `s3://`.
        storage: where an object store is and who signs.
        embed: queries to vectors; None can do full-text search only.
        fingerprint: of the model behind `embed`, which must be the one that embedded the documents.

    Raises:
        InputError: there is no index, or it is not whole.
        UsageError: the vectors are those of another model, or there are none.
        StorageError: the store refused or cannot be reached.
    """
    manifest, table = await _open_whole(uri, storage)
    if embed is not None:
        refuse_other_model(manifest, fingerprint or "", uri)
    with lance_errors(uri):
        return LanceRetriever(table, uri, manifest, await table.schema(), embed)


async def lance_manifest(uri: str, storage: StorageSettings = _ENVIRONMENT) -> Manifest:
    """What a whole index was made of: the model in it is the one to load for searching.

    Raises:
        InputError, StorageError: as `open_lance`.
    """
    manifest, _ = await _open_whole(uri, storage)
    return manifest


async def _open_whole(uri: str, storage: StorageSettings) -> tuple[Manifest, "AsyncTable"]:
    table = await open_table(await connect(uri, storage), uri) if _may_be_there(uri) else None
    if table is None:
        raise InputError(f"There is no index at {uri}; `rankmill index --corpus ... --index {uri}` builds one.")
    manifest = await read_manifest(table, uri)
    with lance_errors(uri):
        if not await is_whole(table):
            raise not_whole(uri, await table.count_rows())
        await table.checkout(WHOLE)
    return manifest, table


def _may_be_there(uri: str) -> bool:
    """Whether to look for a table: connecting makes a local folder that is missing."""
    return "://" in uri or Path(uri).expanduser().exists()


def _fused(lists: Sequence[pa.Table], k: int) -> pa.Table:
    """The best `k` rows of several lists by reciprocal rank fusion."""
    both = pa.concat_tables(lists)
    places: dict[Any, int] = {}
    for place, doc_id in enumerate(both["doc_id"].to_pylist()):
        places.setdefault(doc_id, place)
    best = fuse([rows["doc_id"].to_pylist() for rows in lists])[:k]
    taken = both.take([places[doc_id] for doc_id, _ in best]) if best else both.slice(0, 0)
    return _with_scores(taken, [score for _, score in best])


def _with_scores(table: pa.Table, scores: list[float]) -> pa.Table:
    return table.set_column(table.schema.get_field_index(_SCORE), _SCORE, pa.array(scores, pa.float64()))


def _found(table: pa.Table) -> Found:
    own = {"doc_id", "title", "text", _SCORE}
    return Found(
        ids=tuple(table["doc_id"].to_pylist()),
        titles=tuple(table["title"].to_pylist()),
        texts=tuple(table["text"].to_pylist()),
        scores=tuple(float(score) for score in table[_SCORE].to_pylist()),
        columns={name: tuple(table[name].to_pylist()) for name in table.column_names if name not in own},
    )


def _sql(test: Compare | OneOf | Like | IsNull) -> str:
    """A test in the SQL that Lance reads; names are the index's own."""
    column = f"`{test.column}`"
    if isinstance(test, IsNull):
        return f"{column} IS {'NOT ' if test.negated else ''}NULL"
    if isinstance(test, Compare):
        return f"{column} {test.operator} {_literal(test.value)}"
    negation = "NOT " if test.negated else ""
    if isinstance(test, Like):
        return f"{column} {negation}LIKE {_literal(test.pattern)}"
    return f"{column} {negation}IN ({', '.join(map(_literal, test.values))})"


def _literal(value: Value) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value)
