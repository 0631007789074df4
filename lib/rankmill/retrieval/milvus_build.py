"""Builds an index in Milvus; a build that is killed goes on where it was.

Milvus has no transactions over several requests, but ids are keys: a killed build goes back by one batch and writes
its documents again.
"""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rankmill.errors import InputError
from rankmill.retrieval.corpus import Corpus
from rankmill.retrieval.lance_build import Built, searched
from rankmill.retrieval.manifest import Manifest
from rankmill.retrieval.milvus_client import collection_name, connect, disconnect, milvus_errors, whole_collection
from rankmill.retrieval.retriever import Embed

_LONGEST_ID = 512
_LONGEST_TEXT = 65_535
"""Bytes of a string at most; Milvus' own limit."""
_REQUEST_ROWS = 1_000


def build_milvus(
    uri: str,
    corpus: Corpus,
    manifest: Manifest,
    embed: Embed | None,
    *,
    batch_documents: int,
    progress: Callable[[int], None],
) -> Built:
    """Build an index, or go on with it, or find it whole; see `lance_build.build`.

    Args:
        uri: see `milvus_client.is_milvus`.
        corpus: what to index.
        manifest: names the collection, so that another one gets a collection of its own.
        embed: texts of documents to vectors; None leaves them out.
        batch_documents: documents between two reports, and what a killed build writes again.
        progress: told the number of documents after every batch.

    Raises:
        InputError: the corpus cannot be read, an id is there twice, or a text is longer than Milvus can hold.
        StorageError: the server refused or cannot be reached.
    """
    client, alias = connect(uri)
    name = collection_name(alias, manifest)
    try:
        with milvus_errors(uri):
            if not client.has_collection(name):
                _create(client, name, corpus, manifest)
            there = _count(client, name)
            if whole_collection(client, alias) == name:
                return Built(there, 0)
        total = max(0, there - batch_documents)
        for batch in corpus.read(total, batch_documents):
            rows = _rows(batch, embed)
            with milvus_errors(uri):
                for first in range(0, len(rows), _REQUEST_ROWS):
                    client.upsert(name, rows[first : first + _REQUEST_ROWS])
            total += batch.num_rows
            progress(total)
        with milvus_errors(uri):
            _finish(client, alias, name, total)
        return Built(total, max(0, total - there))
    finally:
        disconnect(client, uri)


def _create(client: Any, name: str, corpus: Corpus, manifest: Manifest) -> None:
    from pymilvus import DataType, Function, FunctionType  # noqa: PLC0415 - an extra

    types = {"string": DataType.VARCHAR, "int64": DataType.INT64, "double": DataType.DOUBLE, "bool": DataType.BOOL}
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    for field in corpus.schema:
        kind = types[str(field.type)]
        length = {"max_length": _LONGEST_ID if field.name == "doc_id" else _LONGEST_TEXT}
        more = length if kind == DataType.VARCHAR else {}
        key = {"is_primary": True} if field.name == "doc_id" else {"nullable": field.name not in {"title", "text"}}
        schema.add_field(field.name, kind, **more, **key)
    # Milvus Lite takes the stemmer and does not stem
    stemmer = {"type": "stemmer", "language": manifest.language.lower()}
    words = {"tokenizer": "standard", "filter": ["lowercase", *([stemmer] if manifest.language != "none" else [])]}
    schema.add_field(
        "searched", DataType.VARCHAR, max_length=_LONGEST_TEXT, enable_analyzer=True, analyzer_params=words
    )
    schema.add_field("sparse", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(
        Function(
            name="bm25", function_type=FunctionType.BM25, input_field_names=["searched"], output_field_names=["sparse"]
        )
    )
    indexes = client.prepare_index_params()
    indexes.add_index("sparse", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    if manifest.embedder is not None:
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=manifest.embedder.dimension)
        indexes.add_index("vector", index_type="AUTOINDEX", metric_type="IP")
    client.create_collection(name, schema=schema, index_params=indexes, consistency_level="Strong")


def _rows(batch: pa.Table, embed: Embed | None) -> list[dict[str, Any]]:
    """Documents as pymilvus takes them.

    Raises:
        InputError: naming a document that does not fit.
    """
    table = batch.append_column("searched", searched(batch))
    for field in table.schema:
        if not pa.types.is_string(field.type):
            continue
        most = _LONGEST_ID if field.name == "doc_id" else _LONGEST_TEXT
        lengths = pc.binary_length(table[field.name])
        longest = pc.max(lengths).as_py() or 0
        if longest > most:
            culprit = table["doc_id"][pc.index(lengths, longest).as_py()].as_py()
            raise InputError(
                f"The document {culprit!r} has {longest:,} bytes in {field.name} (searched is title and text); Milvus "
                f"holds {most:,}. Cut it into passages, or build the index in LanceDB."
            )
    rows: list[dict[str, Any]] = table.to_pylist()
    if embed is not None:
        for row, vector in zip(rows, embed(table["searched"].to_pylist()), strict=True):
            row["vector"] = vector
    return rows


def _count(client: Any, name: str) -> int:
    return int(client.query(name, filter="", output_fields=["count(*)"])[0]["count(*)"])


def _finish(client: Any, alias: str, name: str, total: int) -> None:
    client.flush(name)
    count = _count(client, name)
    if count != total or not total:
        raise InputError(
            f"The corpus has {total:,} documents, but {count:,} are in the collection {name}: an id is there more than "
            "once, or another build writes to it. Make the ids distinct, drop the collection and build it again."
        )
    if whole_collection(client, alias) is None:
        client.create_alias(name, alias)
    else:
        client.alter_alias(name, alias)
