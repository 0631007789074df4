"""How long trouble of a store is waited out: full jitter between attempts, one deadline over all of them."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


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


def patiently(
    attempt: Callable[[], T],
    patience: Patience,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Repeat `attempt` while it raises TransientError.

    Raises:
        TransientError: of the last attempt, once the time is up.
    """
    deadline = clock() + patience.seconds
    ceiling = patience.first_pause
    while True:
        try:
            return attempt()
        except TransientError:
            # Full jitter: workers that met the same fault must not come back together.
            pause = random.uniform(0, ceiling)  # noqa: S311 - no secret
            if clock() + pause >= deadline:
                raise
            sleep(pause)
            ceiling = min(2 * ceiling, patience.longest_pause)
