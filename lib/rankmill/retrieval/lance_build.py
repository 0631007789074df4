"""Builds an index in LanceDB: batch after batch, each one commit; a build that is killed goes on where it was.

How far a build is, the table itself says: as many documents of the corpus as it has rows. What is searched is the
version with the tag `lance_table.WHOLE`, which is made last: an index that is being built, or never was finished, does
not exist for those who search.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from rankmill.errors import InputError
from rankmill.retrieval.corpus import Corpus
from rankmill.retrieval.lance_table import METADATA, TABLE, WHOLE, connect, is_whole, lance_errors, open_table
from rankmill.retrieval.lance_table import read_manifest as manifest_of
from rankmill.retrieval.manifest import Manifest, refuse_other
from rankmill.retrieval.retriever import Embed
from rankmill.settings.storage import StorageSettings

if TYPE_CHECKING:
    from lancedb.table import AsyncTable

VECTOR_INDEX_ROWS = 100_000
"""Vectors from which on their search is approximate; fewer are compared one by one, which misses none."""


@dataclass(frozen=True, slots=True)
class Built:
    """What became of a build."""

    documents: int
    added: int
    """By this run; the others were there."""


async def build(
    uri: str,
    corpus: Corpus,
    manifest: Manifest,
    embed: Embed | None,
    *,
    batch_documents: int,
    storage: StorageSettings,
    progress: Callable[[int], None],
) -> Built:
    """Build an index, or go on with it, or find it whole.

    Args:
        uri: a folder, local or `s3://`.
        corpus: what to index.
        manifest: what the index says of itself.
        embed: texts of documents to vectors; None leaves them out.
        batch_documents: documents of a commit, which is also what a killed build loses at most.
        storage: where an object store is and who signs.
        progress: told the number of documents after every commit.

    Raises:
        OutputConflictError: there is an index of something else.
        InputError: the corpus cannot be read, an id is there twice, or somebody else writes to the index.
        StorageError: the store refused or cannot be reached.
    """
    connection = await connect(uri, storage)
    table = await open_table(connection, uri)
    if table is None:
        with lance_errors(uri):
            table = await connection.create_table(TABLE, schema=_schema(corpus, manifest))
    refuse_other(await manifest_of(table, uri), manifest, uri)
    with lance_errors(uri):
        start = total = await table.count_rows()
        if await is_whole(table):
            return Built(total, 0)
    for batch in corpus.read(start, batch_documents):
        rows = _stored(batch, embed)
        with lance_errors(uri):
            await table.add(rows)
        total += batch.num_rows
        progress(total)
    with lance_errors(uri):
        await _check(table, uri, total)
        await _finish(table, manifest, total)
    return Built(total, total - start)


def searched(table: pa.Table) -> pa.Array:
    """Title and text as one: what full-text search reads and vectors are made of."""
    both = pc.binary_join_element_wise(table["title"], table["text"], " ")
    return pc.if_else(pc.equal(table["title"], ""), table["text"], both)


def _schema(corpus: Corpus, manifest: Manifest) -> pa.Schema:
    schema = corpus.schema.append(pa.field("searched", pa.string()))
    if manifest.embedder is not None:
        schema = schema.append(pa.field("vector", pa.list_(pa.float32(), manifest.embedder.dimension)))
    return schema.with_metadata({METADATA: manifest.to_json()})


def _stored(batch: pa.Table, embed: Embed | None) -> pa.Table:
    table = batch.append_column("searched", searched(batch))
    if embed is None:
        return table
    vectors = embed(table["searched"].to_pylist())
    flat = pa.array(vectors.reshape(-1), pa.float32())
    return table.append_column("vector", pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))


async def _check(table: "AsyncTable", uri: str, total: int) -> None:
    """Refuse ids that are there twice, and rows that are not ours. Holds all ids in memory, and nothing else."""
    rows = await table.count_rows()
    if rows != total:
        raise InputError(
            f"{uri} has {rows:,} documents, but {total:,} were written: another build writes to it. Stop one of them, "
            "delete the folder and start again."
        )
    if not total:
        raise InputError(f"The corpus of {uri} has no documents.")
    ids = (await table.query().select(["doc_id"]).to_arrow())["doc_id"]
    distinct = pc.count_distinct(ids).as_py()
    if distinct != total:
        counts = ids.value_counts()
        twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
        raise InputError(
            f"The corpus has {total:,} documents but {distinct:,} ids: a document could not be told from another. Make "
            "them distinct, delete the index and build it again.",
            [str(value) for value in twice.slice(0, 20).to_pylist()],
        )


async def _finish(table: "AsyncTable", manifest: Manifest, total: int) -> None:
    from lancedb.index import FTS, IvfPq  # noqa: PLC0415 - an extra

    # One commit a batch leaves many small files. Earlier versions go: nobody reads them, the index was not whole.
    await table.optimize(cleanup_older_than=timedelta(milliseconds=1))
    stemmed = manifest.language != "none"
    language = manifest.language if stemmed else "English"
    words = FTS(with_position=False, language=language, stem=stemmed, remove_stop_words=manifest.language == "English")
    await table.create_index("searched", config=words)
    if manifest.embedder is not None and total >= VECTOR_INDEX_ROWS:
        await table.create_index("vector", config=IvfPq(distance_type="dot"))
    await table.tags.create(WHOLE, await table.version())
