"""The LanceDB table that an index is: where it is, what its columns are, and what says that it is whole."""

import warnings
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.types as pt

from rankmill.errors import InputError, UsageError
from rankmill.retrieval.errors import index_errors
from rankmill.retrieval.filters import Kind
from rankmill.retrieval.manifest import Manifest
from rankmill.settings.storage import StorageSettings
from rankmill.storage.uris import refuse_secrets

if TYPE_CHECKING:
    from lancedb.db import AsyncConnection
    from lancedb.table import AsyncTable

TABLE = "documents"
WHOLE = "whole"
"""The tag that a build puts on the table's version, last; nothing else is ever searched."""
METADATA = b"rankmill"
"""The key of the manifest in the table's schema."""


async def connect(uri: str, storage: StorageSettings) -> "AsyncConnection":
    """Open the place of an index; a local folder is made where it is missing.

    Raises:
        StorageError: the store refused or cannot be reached.
        UsageError: LanceDB is not installed, the URI carries credentials, or a profile is to sign.
    """
    refuse_secrets(uri)
    try:
        import lancedb  # noqa: PLC0415 - an extra, and it takes seconds
    except ModuleNotFoundError as error:
        raise UsageError("An index needs LanceDB: install rankmill[search].") from error
    # of any process that is started from here on, Ray's too: those are other programs, which have nothing of LanceDB
    warnings.filterwarnings("ignore", message="lancedb fork support", category=RuntimeWarning)
    with lance_errors(uri):
        return await lancedb.connect_async(uri, storage_options=storage_options(uri, storage))


async def open_table(connection: "AsyncConnection", uri: str) -> "AsyncTable | None":
    """The table of an index, whole or not; None where there is none."""
    with lance_errors(uri):
        if TABLE not in (await connection.list_tables()).tables:
            return None
        return await connection.open_table(TABLE)


async def read_manifest(table: "AsyncTable", uri: str) -> Manifest:
    """What the index was made of.

    Raises:
        InputError: something else made the table.
    """
    with lance_errors(uri):
        schema = await table.schema()
    return Manifest.from_json((schema.metadata or {}).get(METADATA), uri)


async def is_whole(table: "AsyncTable") -> bool:
    """Whether its build came to its end."""
    return WHOLE in await table.tags.list()


def storage_options(uri: str, storage: StorageSettings) -> dict[str, str]:
    """What LanceDB has to be told of a store; keys come from the environment or a role.

    Raises:
        UsageError: a profile is to sign, which LanceDB cannot be told.
    """
    if not uri.lower().startswith(("s3://", "s3a://")):
        return {}
    if storage.profile is not None:
        raise UsageError(
            f"--storage.profile {storage.profile} cannot sign for the index {uri}: LanceDB reads no profile by name. "
            "Give keys by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or by a role."
        )
    import os  # noqa: PLC0415

    endpoint = storage.endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options = {"aws_endpoint": endpoint, "aws_region": storage.region}
    if endpoint is not None and endpoint.startswith("http://"):
        options["allow_http"] = "true"
    return {name: value for name, value in options.items() if value is not None}


def kinds(schema: pa.Schema) -> dict[str, Kind]:
    """Columns that a filter may name, and the type of each."""
    found: dict[str, Kind] = {}
    for field in schema:
        if field.name in {"text", "searched", "vector"}:
            continue
        if pt.is_string(field.type):
            found[field.name] = "string"
        elif pt.is_boolean(field.type):
            found[field.name] = "boolean"
        else:
            found[field.name] = "integer" if pt.is_integer(field.type) else "number"
    return found


def lance_errors(uri: str) -> AbstractContextManager[None]:
    """Turns what LanceDB raises into sentences of ours; it has no errors of its own, only Python's.

    Raises:
        StorageError: whatever it was.
    """
    return index_errors(uri, OSError, RuntimeError, ValueError)


def not_whole(uri: str, rows: int) -> InputError:
    """What is said of a build that was killed."""
    return InputError(
        f"The index {uri} is not whole: its build ended after {rows:,} documents. Run the same `rankmill index` again: "
        "it goes on from there."
    )
