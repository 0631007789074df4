"""What runs leave in an output folder that nothing needs any more: at the end of a job, and for `rankmill gc`.

A part, or a file of rejected rows or scores, whose shard has no commit record yet is no rubbish: the plan decides what
a part is called, the next run adopts it, and a process that was given up for dead may be about to commit it. So are
all files of a shard whose record is damaged: which of them it named, nobody can say.
"""

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from rankmill.batch import group, join, manifest, output, reuse, score_files
from rankmill.batch.manifest import named_files
from rankmill.batch.receipts import Receipt
from rankmill.batch.recorded import Recorded
from rankmill.errors import StorageError
from rankmill.storage.lease import LEASES, look
from rankmill.storage.probe import PROBES
from rankmill.storage.store import STAGING, Store

_log = logging.getLogger("rankmill")

_ATTEMPTS = re.compile(rf"(?:_rejected/part-|{score_files.FOLDER}/)(\d+)-[0-9a-f]+\.parquet")
"""Files that are named by their content: each attempt at a shard may leave others."""
_PASSING = (group.FOLDER, join.FOLDER, reuse.FOLDER, STAGING)
"""Folders that hold nothing of worth once the job is done."""
_FOLDERS = tuple(f"{folder}/" for folder in (STAGING, group.FOLDER, reuse.FOLDER, PROBES))


@dataclass(frozen=True, slots=True)
class Swept:
    """What was deleted, or would be."""

    output: str
    files: tuple[str, ...]
    bytes: int
    deleted: bool
    damaged: tuple[str, ...] = ()
    """A sentence for each commit record that cannot be trusted; what its shard left was not looked at."""


def tidy(store: Store, receipts: Mapping[int, Receipt]) -> None:
    """Delete copies of input rows and what lost attempts wrote, where that is allowed: jobs need no right to delete.

    Args:
        store: the output of a job that has its `_SUCCESS`.
        receipts: of all its shards.
    """
    named = named_files(receipts)
    try:
        losers = [key for folder in ("_rejected", score_files.FOLDER) for key in store.keys(folder) if key not in named]
        keys = [*losers, *(key for folder in _PASSING for key in store.keys(folder))]
        store.delete(keys)
    except StorageError as error:
        _log.warning("files of no use were left behind in %s; `rankmill gc` takes them away. %s", store.uri, error)


def leftovers(recorded: Recorded) -> Swept:
    """Files of ours that nothing needs any more, if no run is alive."""
    receipts, damaged = _sound(recorded)
    named = named_files(receipts)
    newest = f"{LEASES}/{look(recorded.store).epoch:08}."

    def left(key: str) -> bool:
        if key.startswith(f"{LEASES}/"):
            return not key.startswith(newest)  # the newest says which epoch is next
        if key.startswith(f"{join.FOLDER}/"):
            return recorded.success is not None and not damaged  # the next run goes on from there
        attempt = _ATTEMPTS.fullmatch(key)  # of one that lost: the shard's record names another, or none
        return key.startswith(_FOLDERS) or (attempt is not None and int(attempt[1]) in receipts and key not in named)

    found = {key: size for key, size in sorted(recorded.sizes.items()) if left(key)}
    return Swept(recorded.store.uri, tuple(found), sum(found.values()), deleted=False, damaged=damaged)


def sweep(recorded: Recorded, check: Callable[[], None]) -> Swept:
    """Delete the leftovers.

    Args:
        recorded: the output, read while this process held its lease.
        check: raises when another run took over; called before each deletion.
    """
    found = leftovers(recorded)
    for key in found.files:
        check()
        recorded.store.delete([key])
    return replace(found, deleted=True)


def _sound(recorded: Recorded) -> tuple[dict[int, Receipt], tuple[str, ...]]:
    """Receipts by shard, of the records whose files are all there; and a sentence on each of the others."""
    receipts, damaged = {}, []
    for key, body in sorted(recorded.records.items()):
        try:
            receipt = Receipt.from_json(body)
            named = named_files({receipt.shard: receipt})
            lost = next((name for name, size in named.items() if recorded.sizes.get(name) != size), None)
            trouble = None if lost is None else f"it names {lost}, which is not there as it says"
        except (ValueError, TypeError) as error:
            trouble = str(error)
        if trouble is None:
            receipts[receipt.shard] = receipt
        else:
            damaged.append(
                f"{recorded.store.join(key)} cannot be trusted ({trouble}): all files of its shard were left alone. "
                f"Delete the record, and {output.SUCCESS} and {manifest.MANIFEST} where the job was finished; the same "
                "command then commits the shard again."
            )
    return receipts, tuple(damaged)
