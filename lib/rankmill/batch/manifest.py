"""The manifest: every file of a finished output with its size and hash; `_SUCCESS`, written after it, has its hash.

It is made of the commit records as they lie in the store, so that whoever finishes the job writes the same bytes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import orjson

from rankmill.batch.receipts import Receipt, total
from rankmill.errors import StorageError
from rankmill.storage.store import Store

MANIFEST = "_rankmill/manifest.json"
_SHOWN = 20  # files that an error names


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file of the output."""

    shard: int
    key: str
    bytes: int
    sha256: str
    pairs: int
    """Ranked pairs of a part; rejected rows of a file of those; scored pairs of a shard for a file of scores."""


def parts_of(receipts: Mapping[int, Receipt]) -> list[ManifestFile]:
    """The parts, in order."""
    return [
        ManifestFile(shard, receipt.part, receipt.part_bytes, receipt.part_sha256, receipt.rows_out)
        for shard, receipt in sorted(receipts.items())
    ]


def rejected_of(receipts: Mapping[int, Receipt]) -> list[ManifestFile]:
    """The files of rejected rows, in order."""
    return [
        ManifestFile(shard, receipt.rejected_part, receipt.rejected_bytes, receipt.rejected_sha256, receipt.rejected)
        for shard, receipt in sorted(receipts.items())
        if receipt.rejected_part
    ]


def scores_of(receipts: Mapping[int, Receipt]) -> list[ManifestFile]:
    """The files of scores for later jobs, in order."""
    return [
        ManifestFile(shard, receipt.scores_part, receipt.scores_bytes, receipt.scores_sha256, receipt.scored)
        for shard, receipt in sorted(receipts.items())
        if receipt.scores_part
    ]


def named_files(receipts: Mapping[int, Receipt]) -> dict[str, int]:
    """The files that the commit records name, with their sizes in bytes."""
    return {file.key: file.bytes for file in _files_of(receipts)}


def refuse_lost_files(store: Store, receipts: Mapping[int, Receipt]) -> None:
    """Look whether all the files are there that the commit records name; one listing.

    Raises:
        StorageError: naming the first few that are not, or are of another size.
    """
    sizes = store.sizes()
    named = _files_of(receipts)
    lost = [file for file in named if sizes.get(file.key) != file.bytes]
    if lost:
        shown = "\n".join(
            f"  - {file.key}, of shard {file.shard}: {file.bytes:,} bytes were written, "
            + (f"{sizes[file.key]:,} are there" if file.key in sizes else "it is gone")
            for file in lost[:_SHOWN]
        )
        raise StorageError(
            f"{len(lost):,} of the {len(named):,} files that the commit records of {store.uri} name are not as they "
            "were written, so that it got no _SUCCESS. Delete what is left of these files and the records of their "
            f"shards (_rankmill/commits/NUMBER.json), and the same command commits them again.\n{shown}"
        )


def _files_of(receipts: Mapping[int, Receipt]) -> list[ManifestFile]:
    return [*parts_of(receipts), *rejected_of(receipts), *scores_of(receipts)]


def to_json(job: str, receipts: Mapping[int, Receipt], commits: Mapping[str, bytes]) -> bytes:
    """The manifest.

    Args:
        job: fingerprint of the job.
        receipts: of all shards.
        commits: the commit records, by key.
    """
    body = {
        "job": job,
        "totals": asdict(total(receipt for _, receipt in sorted(receipts.items()))),
        "parts": parts_of(receipts),
        "rejected": rejected_of(receipts),
        "scores": scores_of(receipts),
        "commits": {key: hashlib.sha256(commits[key]).hexdigest() for key in sorted(commits)},
    }
    return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


def publish(store: Store, body: bytes) -> str:
    """Write the manifest, or find the same one there; returns its hash.

    Raises:
        StorageError: another one is there.
    """
    if not store.create(MANIFEST, body) and store.read(MANIFEST) != body:
        raise StorageError(
            f"{store.join(MANIFEST)} does not say what the commit records say. `rankmill verify {store.uri}` names the "
            "differences; delete the manifest when the records are right, and run the same command again."
        )
    return hashlib.sha256(body).hexdigest()
