"""`rankmill status`: how far a job is, from its commit records alone, so that any machine can tell."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rankmill.batch import output
from rankmill.batch.receipts import Receipt, Totals, total
from rankmill.batch.recorded import job_of
from rankmill.storage.lease import Sighting, holder_of, look
from rankmill.storage.process import has_ended, this_process
from rankmill.storage.store import Store

RECENT_SECONDS = 300.0
"""What the rate is measured over: long enough for a few shards, short enough to notice that workers came or went."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who last held the output."""

    process: str
    """`process 123 on host`."""
    alive: bool | None
    """None when it did not release its lease and cannot be told from here at a glance."""


@dataclass(frozen=True, slots=True)
class Status:
    """How far a job is."""

    output: str
    complete: bool
    shards: int
    """Of the plan, as are the next two."""
    queries: int
    pairs: int
    totals: Totals
    """Of the shards that are committed."""
    begun_at: float
    """Seconds since 1970."""
    last_commit_at: float | None
    pairs_per_second: float | None
    """Over the last five minutes; None without two commits in them, and for a job that is complete."""
    seconds_left: float | None
    holder: Holder | None
    """None before any run held the output."""
    damaged: tuple[str, ...] = ()
    """Commit records that cannot be read; their shards are not in the totals."""

    def text(self) -> str:
        """Some lines for a person."""
        done = self.totals
        share = done.pairs_in / self.pairs if self.pairs else 1.0
        pairs = f"{done.pairs_in:,}/{self.pairs:,} pairs ({share:.1%})"
        lines = [
            f"{self.output}: {'complete' if self.complete else 'not complete'}",
            f"{done.shards:,}/{self.shards:,} shards, {pairs}, {done.rejected:,} rejected",
            f"begun {_moment(self.begun_at)}, last commit {_moment(self.last_commit_at)}",
        ]
        if self.pairs_per_second is not None and self.seconds_left is not None:
            left = timedelta(seconds=round(self.seconds_left))
            lines.append(f"{self.pairs_per_second:,.0f} pairs/s over the last minutes, about {left} left")
        elif not self.complete:
            lines.append("fewer than two shards were finished in the last five minutes: no rate")
        if self.holder is not None and not self.complete:
            said = {True: "a live run", False: "no live run; the last was", None: "perhaps a live run"}
            lines.append(f"{said[self.holder.alive]}: {self.holder.process}")
        lines += [f"{key} is no commit record and was not counted; `rankmill verify` says more" for key in self.damaged]
        return "\n".join(lines)


class Watcher:
    """Looks at one output again and again; a commit record, which never changes, is read once.

    Args:
        store: the output.

    Raises:
        InputError: there is no job.
        StorageError: the store refused or cannot be reached.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._job = job_of(store)
        self._records: set[str] = set()
        self._receipts: dict[int, Receipt] = {}
        self._damaged: list[str] = []
        self._seen: Sighting | None = None

    def look(self, clock: Callable[[], float] = time.time) -> Status:
        """Look once."""
        complete = self._store.read_if_present(output.SUCCESS) is not None
        fresh = output.commit_records(self._store, known=self._records)
        self._take(fresh)
        plan, totals = self._job["plan"], total(self._receipts.values())
        times = [(receipt.committed_at, receipt.pairs_in) for receipt in self._receipts.values()]
        rate = None if complete else recent_rate(times, clock())
        return Status(
            output=self._store.uri,
            complete=complete,
            shards=plan["shards"],
            queries=plan["queries"],
            pairs=plan["pairs"],
            totals=totals,
            begun_at=self._job["begun_at"],
            last_commit_at=max((moment for moment, _ in times), default=None),
            pairs_per_second=rate,
            seconds_left=(plan["pairs"] - totals.pairs_in) / rate if rate else None,
            holder=self._holder(),
            damaged=tuple(sorted(self._damaged)),
        )

    def _take(self, fresh: Mapping[str, bytes]) -> None:
        """Read new commit records; one that is damaged must not hide what the others say."""
        self._records |= fresh.keys()
        for key, body in fresh.items():
            try:
                receipt = Receipt.from_json(body)
            except ValueError:
                self._damaged.append(key)
            else:
                self._receipts[receipt.shard] = receipt

    def _holder(self) -> Holder | None:
        before, self._seen = self._seen, look(self._store)
        if not self._seen.epoch:
            return None
        process = holder_of(self._store, self._seen.epoch).process
        alive: bool | None = None
        if self._seen.released or has_ended(process):
            alive = False
        elif process.machine == this_process().machine or before not in {None, self._seen}:
            alive = True  # a process of this machine that has not ended, or a heartbeat since the last look
        return Holder(f"process {process.pid} on {process.host}", alive)


def recent_rate(commits: Collection[tuple[float, int]], now: float, window: float = RECENT_SECONDS) -> float | None:
    """Pairs per second over the last minutes.

    The earliest commit in the window only starts the clock: when its own work began is not known.

    Args:
        commits: (moment, pairs) of each shard, in any order; moments by clocks that may differ a little.
        now: the reader's clock, in seconds since 1970.
        window: how far to look back, in seconds.
    """
    recent = sorted(commit for commit in commits if commit[0] > now - window)
    if len(recent) < 2:
        return None
    seconds = max(now, recent[-1][0]) - recent[0][0]
    return sum(pairs for _, pairs in recent[1:]) / seconds if seconds > 0 else None


def _moment(seconds: float | None) -> str:
    if seconds is None:
        return "none yet"
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds").replace("+00:00", " UTC")
