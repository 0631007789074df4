"""How long trouble of a store is waited out: full jitter between attempts, one deadline over all of them."""

import logging
import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_log = logging.getLogger("rankmill")

_SILENT_SECONDS = 3.0  # most trouble has passed by then
_remarking = threading.Lock()
_remarked: dict[str, float] = {}
"""When the trouble with a place was last told of, by the monotonic clock."""


class TransientError(Exception):
    """The store or the way to it had trouble that may pass: 5xx, SlowDown, a reset, a timeout, a body cut short."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on; all in seconds."""

    seconds: float = 300.0
    """Over all attempts; none is begun after it."""
    request_seconds: float = 60.0
    """Of silence after which one request is given up; uploading a part has to fit in."""
    first_pause: float = 0.1
    longest_pause: float = 5.0


def _remark(place: str, error: TransientError, seconds: float) -> None:
    """Once in a while for each place, however many threads have the same trouble with it."""
    now = time.monotonic()
    with _remarking:
        if now - _remarked.get(place, -math.inf) < seconds:
            return
        _remarked[place] = now
    _log.warning("%s: %s; trying again for up to %g s (--storage.retry-seconds)", place, error, seconds)


def patiently(
    attempt: Callable[[], T],
    patience: Patience,
    *,
    place: str = "",
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Repeat `attempt` while it raises TransientError; after a few seconds a log line says what is waited for.

    Args:
        attempt: what to do.
        patience: for how long.
        place: the store, as the log calls it; empty for none.
        clock: seconds.
        sleep: takes seconds.

    Raises:
        TransientError: of the last attempt, once the time is up.
    """
    began = clock()
    deadline = began + patience.seconds
    ceiling = patience.first_pause
    while True:
        try:
            return attempt()
        except TransientError as error:
            if place and clock() - began >= _SILENT_SECONDS:
                _remark(place, error, patience.seconds)
            # Full jitter: workers that met the same fault must not come back together.
            pause = random.uniform(0, ceiling)  # noqa: S311 - no secret
            if clock() + pause >= deadline:
                raise
            sleep(pause)
            ceiling = min(2 * ceiling, patience.longest_pause)
