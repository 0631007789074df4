"""What lies in an output folder: the job record, the commit records, the manifest, the marker, and every other file.

For commands that look at an output from any machine, while its job runs or after it was killed. Nothing is written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from rankmill.batch import manifest, output
from rankmill.batch.receipts import Receipt
from rankmill.errors import InputError
from rankmill.settings.storage import StorageSettings
from rankmill.storage.store import Store

_FIELDS = ("settings", "inputs", "scorer", "plan", "command", "fingerprint", "begun_at")
_COUNTS = ("shards", "queries", "pairs")


@dataclass(frozen=True, slots=True)
class Recorded:
    """An output folder as it was when it was looked at."""

    store: Store
    job: Mapping[str, Any]
    records: Mapping[str, bytes]
    """Commit records, by key."""
    manifest: bytes | None
    success: bytes | None
    sizes: Mapping[str, int]
    """Bytes of every file in the folder, by key."""

    @property
    def plan(self) -> Mapping[str, Any]:
        """What the job record says of the plan: shards, queries, pairs."""
        plan: Mapping[str, Any] = self.job["plan"]
        return plan

    def receipts(self) -> dict[int, Receipt]:
        """Receipts, by shard; StorageError when a record is damaged."""
        return output.receipts_in(self.records, self.store)


def open_output(uri: str, storage: StorageSettings) -> Store:
    """Open an output folder.

    Raises:
        InputError: there is no such local folder.
    """
    store = Store(uri, storage)
    local = "://" not in store.uri or store.uri.startswith("file://")
    if local and not Path(store.uri.removeprefix("file://")).is_dir():
        raise InputError(f"There is no folder {store.uri}.")
    return store


def job_of(store: Store) -> dict[str, Any]:
    """The job record.

    Raises:
        InputError: there is none, or it is damaged.
        StorageError: the store refused or cannot be reached.
    """
    body = store.read_if_present(output.JOB)
    if body is None:
        raise InputError(f"{store.uri} holds no job of `rankmill rerank`: there is no {output.JOB} in it.")
    try:
        job: dict[str, Any] = orjson.loads(body)
        lacking = [name for name in _FIELDS if name not in job] or [name for name in _COUNTS if name not in job["plan"]]
    except (ValueError, TypeError) as error:
        raise InputError(f"{store.join(output.JOB)} is damaged: {error}.") from error
    if lacking:
        raise InputError(f"{store.join(output.JOB)} is damaged or of another release: it has no {', '.join(lacking)}.")
    return job


def read(store: Store) -> Recorded:
    """Look at an output.

    What is written last is read first, so that a job that runs meanwhile is seen as it was at some moment: no record
    without its part, no marker without its manifest.

    Raises:
        InputError: it holds no job, or the job record is damaged.
        StorageError: the store refused or cannot be reached.
    """
    job = job_of(store)
    success = store.read_if_present(output.SUCCESS)
    found = store.read_if_present(manifest.MANIFEST)
    records = output.commit_records(store)
    return Recorded(store, job, records, found, success, store.sizes())
