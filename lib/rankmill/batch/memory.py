"""What a job remembers: a pair whose texts were scored for one shard is not scored again for another.

Such pairs come from queries that are asked more than once, under other ids, with the same documents found for them.
One memory serves all workers of a run (`rankmill.batch.shared_memory`); it is empty when a job is continued. Two
workers that have the same pair in hand at the same moment both score it: neither knows of it yet. A logit that is
remembered is the one that was found first; that another batch could have led to another in its last places is no more
than two runs of a job may differ anyway.
"""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rankmill.batch.freight import EncodedShard, ScoredShard, without
from rankmill.batch.repeats import with_recalled
from rankmill.batch.score_files import RESULTS
from rankmill.tables.schema import BEST_CHUNK

MOST_BYTES = 288 << 20
"""Room for 4,194,304 pairs for certain, for twice as many at most."""

_FIRST_SLOTS = 1 << 14
_GROWTH = 4
_PROBES = 16
_NONE = -1  # in the place of characters, where no chunk was the best
_OF_A_PASS = (("logit", pa.float32()), *((name, pa.int32()) for name in BEST_CHUNK))
_ENCODED = ("length", "document_start", "truncated", "chunks")  # what tokenising adds to a pair

ENTRY = np.dtype([("low", "<u8"), ("high", "<u8"), ("logit", "<f4"), *((name, "<i4") for name in BEST_CHUNK)])
"""A pair: the two halves of its key, and what a forward pass found out about it."""

_SLOT_BYTES = ENTRY.itemsize + 8

Entries = NDArray[Any]
"""Of dtype ENTRY, shape (n,)."""


class Remembers(Protocol):
    """A memory, wherever it is."""

    def find(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], Entries]:
        """Look pairs up.

        Args:
            keys: the two halves of each `pair_key`, shape (n, 2).

        Returns:
            Which of them are remembered, ascending, and what.
        """

    def remember(self, entries: Entries) -> None:
        """Keep what was found out about some pairs, each there once."""


class Memory:
    """A hash table that grows up to a limit; then a new pair takes the place of an older one.

    Args:
        most_bytes: that the table may have; while it grows, a part of that is there besides.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_slots = 1 << (max(1, most_bytes // _SLOT_BYTES).bit_length() - 1)
        self._make(min(_FIRST_SLOTS, self._most_slots))

    def __len__(self) -> int:
        return self._used

    def find(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], Entries]:
        """Look pairs up; see `Remembers`."""
        low, high = np.ascontiguousarray(keys.T)
        place = np.full(len(keys), -1, dtype=np.int64)
        left = np.arange(len(keys))
        for probe in range(_PROBES if self._used else 0):
            slots = self._slots_of(low[left], high[left], probe)
            there = self._high[slots]
            alike = np.flatnonzero(there == high[left])
            alike = alike[self._entries["low"][slots[alike]] == low[left[alike]]]
            place[left[alike]] = slots[alike]
            there[alike] = 0  # found
            left = left[there != 0]
        found = np.flatnonzero(place >= 0)
        return found, self._entries[place[found]]

    def remember(self, entries: Entries) -> None:
        """Keep pairs; see `Remembers`. One that is there already stays as it is."""
        size = len(self._entries)
        while size < self._most_slots and 2 * (self._used + len(entries)) > size:
            size = min(_GROWTH * size, self._most_slots)
        if size > len(self._entries):
            kept = self._entries[self._high != 0]
            self._make(size)
            self._put(kept)
        self._put(entries)

    def _make(self, slots: int) -> None:
        self._entries: Entries = np.zeros(slots, ENTRY)
        self._high = np.zeros(slots, np.uint64)  # of the entries, again: most slots are looked at for no more
        self._used = 0

    def _put(self, entries: Entries) -> None:
        low, high = np.ascontiguousarray(entries["low"]), np.ascontiguousarray(entries["high"])
        left = np.arange(len(entries))
        for probe in range(_PROBES):
            slots = self._slots_of(low[left], high[left], probe)
            free = self._high[slots] == 0
            self._high[slots[free]] = high[left[free]]  # of several that want the same slot one gets it
            there = self._high[slots] == high[left]
            self._entries[slots[free & there]] = entries[left[free & there]]
            self._used += int(np.count_nonzero(free & there))
            left = left[~there]
        slots = self._slots_of(low[left], high[left], 0)
        self._entries[slots], self._high[slots] = entries[left], high[left]

    def _slots_of(self, low: NDArray[np.uint64], high: NDArray[np.uint64], probe: int) -> NDArray[np.int64]:
        """Where pairs may lie: in the place of their choice, then in others that both halves of the key lead to."""
        step = high | np.uint64(1)  # odd: no slot comes twice
        return ((low + np.uint64(probe) * step) & np.uint64(len(self._entries) - 1)).astype(np.int64)


def score_once(row: pa.Table, memory: Remembers, score: Callable[[EncodedShard, pa.Table], pa.Table]) -> pa.Table:
    """Score a shard, but for the pairs that are remembered.

    Args:
        row: an encoded shard.
        memory: of the run; it is told of the pairs that are scored.
        score: scores the shard, which it gets both unpacked and as a row.

    Returns:
        The scored shard as a row, the pairs that were remembered among those known.
    """
    whole = EncodedShard.from_row(row)
    shard, recalled = recall(whole, memory)
    scored_row = score(shard, row if recalled is None else shard.to_row())
    scored = ScoredShard.from_row(scored_row)
    if len(scored.pairs) and "pair_key" in scored.pairs.column_names:
        memory.remember(entries_of(scored.pairs))
    return scored_row if recalled is None else with_recalled(scored, recalled).to_row()


def recall(shard: EncodedShard, memory: Remembers) -> tuple[EncodedShard, pa.Table | None]:
    """Take the pairs that are remembered out of a shard.

    Returns:
        The shard without them; and their rows with `RESULTS`, as those of `EncodedShard.known`, or None.
    """
    pairs = shard.pairs
    if not len(pairs) or "pair_key" not in pairs.column_names:
        return shard, None
    places, entries = memory.find(keys_of(pairs))
    if not len(places):
        return shard, None
    rows = pairs.take(places)
    for name, kind in _OF_A_PASS:
        values = np.ascontiguousarray(entries[name])
        rows = rows.append_column(name, pa.array(values, kind, mask=values == _NONE if name in BEST_CHUNK else None))
    names = [name for name in pairs.column_names if name not in _ENCODED]
    rest = np.delete(np.arange(len(pairs)), places)
    tokens = without(shard.encoded_pairs(), places).token_ids
    left = EncodedShard(shard.index, pairs.take(rest).combine_chunks(), shard.rejected, tokens, shard.known)
    return left, rows.select([*names, *RESULTS]).combine_chunks()


def entries_of(pairs: pa.Table) -> Entries:
    """What was found out about the pairs of a scored shard."""
    entries = np.zeros(len(pairs), ENTRY)
    entries["low"], entries["high"] = keys_of(pairs).T
    entries["logit"] = pairs.column("logit").to_numpy()
    for name in BEST_CHUNK:
        entries[name] = pairs.column(name).fill_null(_NONE).to_numpy() if name in pairs.column_names else _NONE
    return entries


def keys_of(pairs: pa.Table) -> NDArray[np.uint64]:
    """The two halves of each `pair_key`, shape (n, 2); none is null."""
    keys = pairs.column("pair_key").combine_chunks()
    halves = np.frombuffer(keys.buffers()[1], dtype="<u8").reshape(-1, 2)
    return halves[keys.offset : keys.offset + len(keys)]
