"""Opens an index by its URI, whatever it is kept in."""

import asyncio

from rankmill.retrieval.lance import open_lance
from rankmill.retrieval.milvus import open_milvus
from rankmill.retrieval.milvus_client import is_milvus
from rankmill.retrieval.retriever import Embed, Retriever
from rankmill.settings.storage import StorageSettings


async def open_retriever(
    uri: str, storage: StorageSettings, embed: Embed | None = None, fingerprint: str | None = None
) -> Retriever:
    """Open a whole index for searching.

    Args:
        uri: a folder, local or `s3://`, for LanceDB; `http(s)://HOST:PORT/NAME` or `FILE.db` for Milvus.
        storage: where an object store is and who signs.
        embed: queries to vectors; None can do full-text search only.
        fingerprint: of the model behind `embed`, which must be the one that embedded the documents.

    Raises:
        InputError: there is no index, or it is not whole.
        UsageError: the vectors are those of another model, there are none, or a package is not installed.
        StorageError: the store refused or cannot be reached.
    """
    if is_milvus(uri):
        return await asyncio.to_thread(open_milvus, uri, embed, fingerprint)
    return await open_lance(uri, storage, embed, fingerprint)
