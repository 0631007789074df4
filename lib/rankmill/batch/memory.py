"""What the workers of a run know of each other's pairs: the scores of those that are done, and who is at work on which.

A pair that comes again under other ids, because a query is asked more than once with the same documents found for it,
is then scored once (`rankmill.batch.score_once`). One memory serves all workers (`rankmill.batch.shared_memory`).

A pair that is asked for and not known is claimed by the shard that asks; others hear that it is in other hands until
that shard has told what it found. A claim is an entry of the table like any other, so that telling fills it in, and
claims that nobody came back for are forgotten as old pairs are. A shard that asks anew, because its worker died, is not
told of its own claims.
"""

import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rankmill.tables.schema import BEST_CHUNK

MOST_BYTES = 320 << 20
"""Room for 4,194,304 pairs for certain, for twice as many at most."""
LEAST_PATIENCE = 5.0
"""Seconds that one waits at least for what is in other hands."""

_PATIENCE = 2.0  # times the longest that a shard took so far
_FIRST_SLOTS = 1 << 14
_GROWTH = 4
_PROBES = 16

ENTRY = np.dtype(
    [("low", "<u8"), ("high", "<u8"), ("logit", "<f4"), *((name, "<i4") for name in BEST_CHUNK), ("claim", "<i4")]
)
"""A pair: the two halves of its key, what a forward pass found out about it, and 0.

Where that is not known yet, the number of the shard that claims it, from 1, stands for 0.
"""

_SLOT_BYTES = ENTRY.itemsize + 8

Entries = NDArray[Any]
"""Of dtype ENTRY, shape (n,)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What there is to know about some pairs; of the others whoever asked is at work from now on."""

    known: NDArray[np.int64]
    """Which of them are remembered, ascending."""
    entries: Entries
    """What is remembered of these."""
    elsewhere: NDArray[np.int64]
    """Which of them other shards are at work on, ascending."""
    patience: float = 0.0
    """Seconds after which there is little hope for those."""


class Remembers(Protocol):
    """A memory, wherever it is."""

    def ask(self, keys: NDArray[np.uint64], shard: int) -> Answer:
        """Look pairs up, and claim those that nobody knows or is at work on.

        Args:
            keys: the two halves of each `pair_key`, each pair there once, shape (n, 2).
            shard: who asks; below 2**31 - 1.
        """

    def remember(self, entries: Entries, shard: int) -> None:
        """Keep what was found out about some pairs, each there once; what else the shard claimed is free again."""


class Memory:
    """A hash table that grows up to a limit; then a new pair takes the place of an older one. Threads may share it.

    Args:
        most_bytes: that the table may have; while it grows, a part of that is there besides.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_slots = 1 << (max(1, most_bytes // _SLOT_BYTES).bit_length() - 1)
        self._make(min(_FIRST_SLOTS, self._most_slots))
        self._lock = threading.Lock()
        self._at_work: dict[int, float] = {}  # claims that stand, and since when
        self._longest = 0.0

    def __len__(self) -> int:
        return self._used

    def ask(self, keys: NDArray[np.uint64], shard: int) -> Answer:
        """Look pairs up and claim the others; see `Remembers`."""
        with self._lock:
            return self._ask(keys, shard + 1)

    def remember(self, entries: Entries, shard: int) -> None:
        """Keep pairs; see `Remembers`. One that is known already stays as it is."""
        with self._lock:
            since = self._at_work.pop(shard + 1, None)
            if since is not None:
                self._longest = max(self._longest, time.monotonic() - since)
            self._keep(entries)

    def _ask(self, keys: NDArray[np.uint64], claim: int) -> Answer:
        place = self._places(keys)
        there = np.flatnonzero(place >= 0)
        claims = self._entries["claim"][place[there]]
        others = [number for number in self._at_work if number != claim]
        known, elsewhere = there[claims == 0], there[np.isin(claims, others)]
        answer = Answer(known, self._entries[place[known]], elsewhere, max(LEAST_PATIENCE, _PATIENCE * self._longest))
        mine = np.ones(len(keys), dtype=bool)
        mine[known] = mine[elsewhere] = False
        if mine.any():
            self._at_work[claim] = time.monotonic()
            claimed = np.zeros(int(mine.sum()), ENTRY)
            claimed["low"], claimed["high"] = keys[mine].T
            claimed["claim"] = claim
            self._keep(claimed)
        return answer

    def _places(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The slot of each pair, -1 where it has none."""
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
        return place

    def _keep(self, entries: Entries) -> None:
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
            open_ = there & (free | (self._entries["claim"][slots] != 0))
            self._entries[slots[open_]] = entries[left[open_]]
            self._used += int(np.count_nonzero(free & there))
            left = left[~there]
        slots = self._slots_of(low[left], high[left], 0)
        self._entries[slots], self._high[slots] = entries[left], high[left]

    def _slots_of(self, low: NDArray[np.uint64], high: NDArray[np.uint64], probe: int) -> NDArray[np.int64]:
        """Where pairs may lie: in the place of their choice, then in others that both halves of the key lead to."""
        step = high | np.uint64(1)  # odd: no slot comes twice
        return ((low + np.uint64(probe) * step) & np.uint64(len(self._entries) - 1)).astype(np.int64)
