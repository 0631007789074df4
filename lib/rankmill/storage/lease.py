"""Who works on an output folder: one live run at a time.

A lease is made of objects that are only ever created, because put-if-absent is the one atomic thing that every store
has. `00000003.json` is the third run to hold the folder (its epoch); `00000003.beat-00000042` says that it is alive;
`00000003.released` says that it is done. The next run creates epoch 4, of which the store lets one win, and the holder
of epoch 3 sees that at its next beat and stops. Whether a holder lives is judged by change alone, watched on the
observer's own clock: clocks of different machines are never compared.

The lease saves work. It is not what makes results right: a run that was paused for an hour and then writes on does no
harm, since the first writer of every object wins.
"""

import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

import orjson

from rankmill.errors import OutputBusyError, StorageError
from rankmill.storage.process import Process, has_ended, this_process
from rankmill.storage.store import Store

LEASES = "_rankmill/lease"
"""Folder of the lease's objects."""

BEATS = 4
"""Heartbeats within the time after which a silent holder counts as dead."""

_LOOKS = 8  # of an observer, within the same time
_PARTING_SECONDS = 3.0  # at most, for each of two steps: whoever got a spot notice has to be gone soon
_NAME = re.compile(r"/(\d{8})\.(?:json|beat-(\d{8})|(released))$")

_log = logging.getLogger("rankmill")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who took an epoch."""

    run: str
    """Random name of the run."""
    process: Process
    beat_seconds: float
    """Between two of its heartbeats."""

    def to_json(self) -> bytes:
        """What the epoch's object holds."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)

    @classmethod
    def from_json(cls, body: bytes) -> "Holder":
        """Read an epoch's object."""
        values = orjson.loads(body)
        return cls(values["run"], Process(**values["process"]), values["beat_seconds"])


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a look at the folder shows of its newest epoch; two that are equal show no sign of life between them."""

    epoch: int = 0
    """0: nobody has held it yet."""
    beats: int = 0
    released: bool = False


def look(store: Store) -> Sighting:
    """See the newest epoch; one listing."""
    newest = Sighting()
    for key in store.keys(LEASES):
        found = _NAME.search(key)
        if found is None:
            continue
        epoch, beats, released = int(found[1]), int(found[2] or 0), found[3] is not None
        if epoch > newest.epoch:
            newest = Sighting(epoch, beats, released)
        elif epoch == newest.epoch:
            newest = Sighting(epoch, max(beats, newest.beats), released or newest.released)
    return newest


def holder_of(store: Store, epoch: int) -> Holder:
    """Read who took an epoch."""
    return Holder.from_json(store.read(f"{LEASES}/{epoch:08}.json"))


class Lease:
    """An epoch that this process holds."""

    def __init__(self, store: Store, epoch: int, holder: Holder) -> None:
        self.epoch = epoch
        self._store, self._holder = store, holder
        self._beats = 0
        self._deletes = True
        self._lost: str | None = None

    def beat(self) -> None:
        """Show a sign of life and look whether another run took over; what it finds, `check` says."""
        self._store.create(self._beat_key(self._beats + 1), b"")
        self._beats += 1
        newest = look(self._store)
        if newest.epoch > self.epoch and self._lost is None:
            self._lost = (
                f"{self._store.uri} was taken over by {_described(holder_of(self._store, newest.epoch), newest)} while "
                "this run showed no sign of life. This run stops; what it finished is kept and the other goes on."
            )
        if self._beats > 1 and self._deletes:
            try:
                self._store.delete([self._beat_key(self._beats - 1)])
            except StorageError:
                self._deletes = False  # a user without the right to delete leaves them to `rankmill gc`

    def check(self) -> None:
        """Stop a run that lost its lease; without asking the store.

        Raises:
            OutputBusyError: another run took over.
        """
        if self._lost is not None:
            raise OutputBusyError(self._lost)

    def release(self) -> None:
        """Let the next run begin at once; trouble here only costs it the waiting."""
        if self._lost is not None:
            return
        patience = self._store.patience
        store = self._store.with_patience(replace(patience, seconds=min(patience.seconds, _PARTING_SECONDS)))
        try:
            store.create(f"{LEASES}/{self.epoch:08}.released", b"")
        except StorageError as error:
            _log.warning("The lease could not be released; the next run will wait for it to run out. %s", error)

    def _beat_key(self, number: int) -> str:
        return f"{LEASES}/{self.epoch:08}.beat-{number:08}"


def acquire(
    store: Store,
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Lease:
    """Take the next epoch; waits for `seconds` when a holder shows no sign of life but did not release.

    Raises:
        OutputBusyError: another run lives, or was faster; naming its host, process and age.
        StorageError: the store refuses or cannot be reached.
    """
    newest = look(store)
    if newest.epoch and not newest.released:
        _watch(store, newest, seconds, clock, sleep)
    holder = Holder(uuid.uuid4().hex[:12], this_process(), seconds / BEATS)
    epoch = newest.epoch + 1
    if not store.create(f"{LEASES}/{epoch:08}.json", holder.to_json()):
        raise _busy(store, Sighting(epoch))
    # A heartbeat is of no use once it is late: it gives up sooner than other writes.
    brief = replace(
        store.patience, seconds=seconds / 2, request_seconds=min(seconds / 2, store.patience.request_seconds)
    )
    return Lease(store.with_patience(brief), epoch, holder)


def refuse_held(
    store: Store, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Refuse a folder that a live run holds, before its successor takes the trouble to begin; nothing is taken.

    A holder that may be at work is watched for two of its heartbeats. One that keeps silent `acquire` will judge.

    Raises:
        OutputBusyError: another run lives; naming its host, process and age.
        StorageError: the store refuses or cannot be reached.
    """
    newest = look(store)
    if newest.epoch and not newest.released:
        _watch(store, newest, 2 * holder_of(store, newest.epoch).beat_seconds, clock, sleep)


@contextmanager
def held(store: Store, seconds: float) -> Iterator[Lease]:
    """Hold the folder for the length of a `with` block, heartbeats on a thread of their own.

    Raises:
        OutputBusyError, StorageError: as `acquire`.
    """
    lease = acquire(store, seconds)
    stop = threading.Event()

    def keep_beating() -> None:
        while not stop.wait(seconds / BEATS):
            try:
                lease.beat()
            except StorageError as error:
                _log.warning("No heartbeat: %s", error)

    thread = threading.Thread(target=keep_beating, name="rankmill-lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        stop.set()
        thread.join(timeout=min(seconds / BEATS, _PARTING_SECONDS))
        lease.release()


def _watch(
    store: Store, first: Sighting, seconds: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> None:
    """Return when the holder is dead.

    Raises:
        OutputBusyError: it is not.
    """
    holder = holder_of(store, first.epoch)
    if has_ended(holder.process):
        return
    _log.info("waiting up to %g s: %s may still be at work", seconds, _described(holder, first))
    deadline = clock() + seconds
    while clock() < deadline:
        sleep(seconds / _LOOKS)
        now = look(store)
        if now.released and now.epoch == first.epoch:
            return
        if now != first:
            raise _busy(store, now)


def _busy(store: Store, seen: Sighting) -> OutputBusyError:
    who = _described(holder_of(store, seen.epoch), seen)
    return OutputBusyError(
        f"{store.uri} is held by {who}. Wait until it is done, or stop it; then the same command continues."
    )


def _described(holder: Holder, seen: Sighting) -> str:
    """Who, and for how long by its own count of heartbeats: its clock may differ from ours."""
    return (
        f"a live run, process {holder.process.pid} on {holder.process.host}, "
        f"at work for about {_duration(seen.beats * holder.beat_seconds)}"
    )


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
