"""What a job that is continued knows from the start: the scores that its committed shards kept (`--keep-scores`)."""

import logging
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from rankmill.batch import output
from rankmill.batch.memory import ENTRY, Entries
from rankmill.batch.score_files import from_bytes
from rankmill.batch.score_once import entries_of
from rankmill.errors import RankmillError, StorageError
from rankmill.storage.store import Store, sha256

_log = logging.getLogger("rankmill")

MOST_PAIRS = 4_000_000
"""What there is certainly room for in a memory, with as many that the run itself finds out."""

Tell = Callable[[Entries, int], None]
"""Takes what is known of some pairs, and the number of their shard."""


def remember_committed(tell: Tell, store: Store, most_pairs: int = MOST_PAIRS) -> None:
    """Read the files of scores in an output, shard after shard.

    What cannot be read is named in a warning: its pairs are scored again where they come again, and no harm is done.

    Args:
        tell: is told of each file.
        store: the output.
        most_pairs: when so many were told, the rest is left.
    """
    told = 0
    try:
        for shard, receipt in sorted(output.finished_shards(store).items()):
            if told >= most_pairs:
                return
            if receipt.scores_part:
                entries = _entries(store, receipt.scores_part, receipt.scores_sha256)
                tell(entries, shard)
                told += len(entries)
    except RankmillError as error:
        _log.warning("what this job scored before is scored again where it comes again: %s", error)


def _entries(store: Store, key: str, expected: str) -> Entries:
    """What a file of scores holds; nothing where it cannot be read."""
    try:
        body = store.read(key)
        if sha256(body) != expected:
            raise StorageError("its bytes are not those that were written.")
        return entries_of(from_bytes(body))
    except (RankmillError, OSError, pa.ArrowException) as error:
        _log.warning(
            "%s cannot be read, so that its pairs are scored where they come again: %s", store.join(key), error
        )
        return np.zeros(0, ENTRY)
