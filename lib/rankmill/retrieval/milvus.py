"""First stage on Milvus: a server, or Milvus Lite in a file. Full-text scores are Milvus' BM25."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from rankmill.errors import InputError, UsageError
from rankmill.retrieval.filters import Compare, IsNull, Kind, Like, OneOf, parse, render
from rankmill.retrieval.fusion import both, fuse
from rankmill.retrieval.milvus_client import connect, disconnect, milvus_errors, model_part, whole_collection
from rankmill.retrieval.retriever import Embed, Found, Mode, modes_with, no_such_mode

_Hit = tuple[dict[str, Any], float]
_SECONDS = 30.0
"""For an answer of the server: as long as a request may take, unless configured otherwise."""


class MilvusRetriever:
    """Searches an index that `milvus_build` built; see `Retriever`. `open_milvus` makes it.

    pymilvus waits for every answer, so that each search takes a thread.

    Args:
        client: `pymilvus.MilvusClient`.
        uri: where it is, for messages.
        collection: a whole one; it stays the same while another takes the alias over.
        embed: queries to vectors, by the model that embedded the documents; None can do full-text search only.
    """

    def __init__(self, client: Any, uri: str, collection: str, embed: Embed | None) -> None:
        self._client = client
        self._uri = uri
        self._collection = collection
        self._embed = embed
        self._kinds = _kinds(client.describe_collection(collection)["fields"])
        self._fetched = [*self._kinds, "text"]

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
        where = "" if filter is None else render(parse(filter, self._kinds), _expression)
        if mode == "sparse":
            return _found(await _on_thread(self._sparse, query, k, where))
        if mode == "dense":
            return _found(await _on_thread(self._dense, query, k, where))
        lists = await both(_on_thread(self._sparse, query, k, where), _on_thread(self._dense, query, k, where))
        rows = {row["doc_id"]: row for hits in lists for row, _ in hits}
        best = fuse([[row["doc_id"] for row, _ in hits] for hits in lists])[:k]
        return _found([(rows[doc_id], score) for doc_id, score in best])

    def within(self, seconds: float) -> Self:  # noqa: ARG002 - it is here
        """See `Retriever`."""
        return self

    def close(self) -> None:
        """See `Retriever`: the server, or the file that only one process can open."""
        disconnect(self._client, self._uri)

    def _sparse(self, query: str, k: int, where: str) -> list[_Hit]:
        return self._hits(query, "sparse", "BM25", k, where)

    def _dense(self, query: str, k: int, where: str) -> list[_Hit]:
        if self._embed is None:
            raise no_such_mode("dense", self.modes)
        return self._hits(self._embed([query])[0], "vector", "IP", k, where)

    def _hits(self, data: Any, field: str, metric: str, k: int, where: str) -> list[_Hit]:
        with milvus_errors(self._uri):
            (hits,) = self._client.search(
                self._collection,
                data=[data],
                anns_field=field,
                search_params={"metric_type": metric},
                limit=k,
                filter=where,
                output_fields=self._fetched,
                timeout=_SECONDS,
            )
        # Milvus Lite gives BM25, which is never negative, with its sign turned
        found = [
            (dict(hit["entity"]), abs(hit["distance"]) if metric == "BM25" else float(hit["distance"])) for hit in hits
        ]
        return sorted(found, key=lambda hit: (-hit[1], hit[0]["doc_id"]))


async def _on_thread(search: Callable[[str, int, str], list[_Hit]], query: str, k: int, where: str) -> list[_Hit]:
    """Search on a thread, which cannot be stopped: a search that is cancelled ends when its thread does."""
    running = asyncio.get_running_loop().run_in_executor(None, search, query, k, where)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise


def open_milvus(uri: str, embed: Embed | None = None, fingerprint: str | None = None) -> MilvusRetriever:
    """Open an index for searching; takes a moment, so call it on a thread.

    Args:
        uri: see `milvus_client.is_milvus`.
        embed: queries to vectors; None can do full-text search only.
        fingerprint: of the model behind `embed`, which must be the one that embedded the documents.

    Raises:
        InputError: there is no whole index.
        UsageError: the vectors are those of another model, or there are none.
        StorageError: the server refused or cannot be reached.
    """
    if not uri.lower().startswith("http") and not Path(uri).exists():  # connecting would make the file
        raise _no_index(uri)
    client, alias = connect(uri)
    try:
        with milvus_errors(uri):
            collection = _whole(client, alias, uri)
            if embed is not None:
                _refuse_other_model(collection, alias, fingerprint, uri)
            client.load_collection(collection)
            return MilvusRetriever(client, uri, collection, embed)
    except BaseException:
        disconnect(client, uri)
        raise


def _whole(client: Any, alias: str, uri: str) -> str:
    collection = whole_collection(client, alias)
    if collection is None:
        raise _no_index(uri)
    return collection


def _no_index(uri: str) -> InputError:
    return InputError(f"There is no whole index at {uri}; `rankmill index` builds one, or goes on with it.")


def _refuse_other_model(collection: str, alias: str, fingerprint: str | None, uri: str) -> None:
    wanted = model_part(fingerprint)
    if not collection.startswith(f"{alias}_{wanted}_"):
        raise UsageError(
            f"The collection {collection} of {uri} has no vectors of the model with the fingerprint {wanted}: load the "
            "model it was built with, with the same limits and precision, or build it again."
        )


def _kinds(fields: list[dict[str, Any]]) -> dict[str, Kind]:
    from pymilvus import DataType  # noqa: PLC0415 - an extra

    known: dict[Any, Kind] = {
        DataType.VARCHAR: "string",
        DataType.INT64: "integer",
        DataType.DOUBLE: "number",
        DataType.BOOL: "boolean",
    }
    return {
        str(field["name"]): known[field["type"]]
        for field in fields
        if field["type"] in known and field["name"] not in {"text", "searched"}
    }


def _found(hits: list[_Hit]) -> Found:
    names = [name for name in (hits[0][0] if hits else {}) if name not in {"doc_id", "title", "text"}]
    return Found(
        ids=tuple(row["doc_id"] for row, _ in hits),
        titles=tuple(row["title"] for row, _ in hits),
        texts=tuple(row["text"] for row, _ in hits),
        scores=tuple(score for _, score in hits),
        columns={name: tuple(row[name] for row, _ in hits) for name in names},
    )


def _expression(test: Compare | OneOf | Like | IsNull) -> str:
    """A test in Milvus' language, where NOT of a NULL may be true: tests that exclude ask for a value as well."""
    column = test.column
    if isinstance(test, IsNull):
        return f"{column} is {'not ' if test.negated else ''}null"
    if isinstance(test, Compare):
        operator = {"=": "=="}.get(test.operator, test.operator)
        found = f"{column} {operator} {_literal(test.value)}"
        return found if operator != "!=" else f"({column} is not null) and ({found})"
    if isinstance(test, Like):
        found = f"{column} like {_literal(test.pattern)}"
    else:
        found = f"{column} in [{', '.join(map(_literal, test.values))}]"
    return f"({column} is not null) and (not ({found}))" if test.negated else found


def _literal(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
