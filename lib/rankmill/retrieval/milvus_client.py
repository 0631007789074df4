"""A Milvus server, or Milvus Lite in a file: which collection an index is, and what says that it is whole.

A collection is named after what is in it: `NAME_MODEL_DIGEST`, with the first digits of the embedding model's
fingerprint (`words` without one) and of the manifest's digest. The alias `NAME` is set last, to a whole collection, and
is what is searched; a newer index takes the alias over, without a moment in which there is none.
"""

import hashlib
import os
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlsplit

from rankmill.errors import UsageError
from rankmill.retrieval.errors import index_errors
from rankmill.retrieval.manifest import Manifest
from rankmill.storage.uris import refuse_secrets

NAME = "documents"
TOKEN = "MILVUS_TOKEN"  # noqa: S105 - the name of the variable
_DIGITS = 12


def is_milvus(uri: str) -> bool:
    """Whether the URI of an index names a Milvus: `http(s)://HOST:PORT/NAME`, or a file for Milvus Lite, `FILE.db`."""
    return uri.lower().startswith(("http://", "https://")) or uri.endswith(".db")


def connect(uri: str) -> tuple[Any, str]:
    """A client (`pymilvus.MilvusClient`) and the alias of an index. The environment's MILVUS_TOKEN signs.

    Raises:
        StorageError: there is nobody.
        UsageError: pymilvus is not installed, or the URI carries credentials.
    """
    refuse_secrets(uri)
    try:
        from pymilvus import MilvusClient  # noqa: PLC0415 - an extra, and it takes seconds
    except ModuleNotFoundError as error:
        raise UsageError("An index in Milvus needs pymilvus: install rankmill[milvus].") from error
    address, name = uri, NAME
    if uri.lower().startswith("http"):
        parts = urlsplit(uri)
        address, name = f"{parts.scheme}://{parts.netloc}", parts.path.strip("/") or NAME
    with milvus_errors(uri):
        return MilvusClient(address, token=os.environ.get(TOKEN, "")), name


def disconnect(client: Any, uri: str) -> None:
    """Close a client; Milvus Lite's file too, for all of this process, so that another one can open it."""
    client.close()
    if not uri.lower().startswith("http"):
        from milvus_lite.server_manager import server_manager_instance  # type: ignore[import-untyped]  # noqa: PLC0415

        server_manager_instance.release_server(uri)


def collection_name(alias: str, manifest: Manifest) -> str:
    """What the collection of an index is called."""
    digest = hashlib.sha256(manifest.to_json().encode()).hexdigest()
    fingerprint = None if manifest.embedder is None else manifest.embedder.fingerprint
    return f"{alias}_{model_part(fingerprint)}_{digest[:_DIGITS]}"


def model_part(fingerprint: str | None) -> str:
    """The part of a collection's name that says which model its vectors are of."""
    return fingerprint[:_DIGITS] if fingerprint else "words"


def whole_collection(client: Any, alias: str) -> str | None:
    """The collection that an alias stands for; None where there is none."""
    if not client.has_collection(alias):
        return None
    name = str(client.describe_alias(alias)["collection_name"])
    return name if name.startswith(f"{alias}_") else None


def milvus_errors(uri: str) -> AbstractContextManager[None]:
    """Turns what pymilvus raises into sentences of ours.

    Raises:
        StorageError: whatever it was.
    """
    from pymilvus.exceptions import MilvusException  # noqa: PLC0415 - an extra

    return index_errors(uri, MilvusException, OSError)
