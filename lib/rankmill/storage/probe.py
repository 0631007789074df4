"""Asks a store to prove that its put-if-absent is one: every promise of a job rests on it.

Stores that call themselves S3-compatible have ignored the header, or accepted it and let two writers win; neither says
so in an answer. So writers race for one key, a few times, before anything is written that matters.
"""

import logging
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from rankmill.errors import StorageError
from rankmill.storage.store import Store

PROBES = "_rankmill/probe"
"""Folder of the objects that are raced for; they are deleted where that is allowed."""

_log = logging.getLogger("rankmill")

_WRITERS = 8
_ROUNDS = 4  # a store that lets two win in half of the races passes one time in sixteen


def require_writable(store: Store) -> None:
    """Refuse a folder that nothing can be written into, with one small write that leaves no trace.

    Raises:
        StorageError: naming the reason.
    """
    store.try_writing(f"{PROBES}/{uuid.uuid4().hex}")


def flaw_of(store: Store) -> str | None:
    """Say what is wrong with the store's put-if-absent, or None.

    Raises:
        StorageError: the store refuses, or cannot be reached.
    """
    keys = [f"{PROBES}/{uuid.uuid4().hex}" for _ in range(_ROUNDS)]
    with ThreadPoolExecutor(_WRITERS) as pool:
        flaws = [_race(store, key, pool) for key in keys]
    with suppress(StorageError):  # a user without the right to delete can run jobs too; `rankmill gc` takes them away
        store.delete(keys)
    return next((flaw for flaw in flaws if flaw is not None), None)


def require_atomic_create(store: Store, *, allow_unsafe: bool = False) -> None:
    """Refuse a store whose put-if-absent is none, or warn of it.

    Raises:
        StorageError: naming what went wrong and the way around it.
    """
    flaw = flaw_of(store)
    if flaw is not None and allow_unsafe:
        _log.warning("%s cannot keep a job safe: %s. See to it that there is never more than one run.", store.uri, flaw)
    elif flaw is not None:
        raise StorageError(
            f"{store.uri} cannot keep a job safe: {flaw}. Two runs, or a run and a worker that was given up, could "
            "overwrite each other's rankings. Use a store with conditional writes (If-None-Match), or "
            "--allow-unsafe-store and see to it yourself that there is never more than one run."
        )


def _race(store: Store, key: str, pool: ThreadPoolExecutor) -> str | None:
    start = threading.Barrier(_WRITERS)
    bodies = [f"writer {number} {uuid.uuid4().hex}".encode() for number in range(_WRITERS)]

    def write(body: bytes) -> bool:
        start.wait()
        return store.create(key, body)

    won = [body for body, wins in zip(bodies, pool.map(write, bodies), strict=True) if wins]
    if len(won) != 1:
        return f"of {_WRITERS} writers that created one object at the same time, {len(won)} were told that they did"
    if store.create(key, b"late"):
        return "an object that was there could be created once more"
    if store.read(key) != won[0]:
        return "an object does not hold what the writer wrote who was told that it created it"
    return None
