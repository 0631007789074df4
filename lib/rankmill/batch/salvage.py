"""Finding the rows that cannot be scored, whatever they do: cut what fails in two until it cannot be cut.

What cannot be cut is a unit: a single row, or, for a scorer of lists, a list of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

MOST_LOST = 16
"""Units of a shard that may be lost this way: with more, the model or the machine is at fault and not the rows."""


class PieceFailedError(Exception):
    """A piece of a shard cannot be worked on as it is.

    Args:
        reason: of `rankmill.tables.canonical.REASONS`.
        detail: a sentence.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)


@dataclass(frozen=True, slots=True)
class Lost:
    """A unit that fails when it is alone."""

    unit: int
    """Position in the shard."""
    reason: str
    detail: str


def salvage(size: int, attempt: Callable[[int, int], T]) -> tuple[list[T], list[Lost]]:
    """Get through a shard in as few pieces as its bad rows allow: one, if there is none.

    A bad unit costs about two attempts for each halving of the shard.

    Args:
        size: units.
        attempt: works on units `start` to `stop` (exclusive); raises PieceFailedError where that cannot be done.

    Returns:
        The results of the pieces that went well, and the units that did not, both in the order of the units.

    Raises:
        PieceFailedError: more than MOST_LOST units fail alone, or a shard without rows does.
    """
    done: list[T] = []
    lost: list[Lost] = []
    waiting = [(0, size)]
    while waiting:
        start, stop = waiting.pop()
        try:
            done.append(attempt(start, stop))
        except PieceFailedError as failure:
            if stop - start > 1:
                middle = (start + stop) // 2
                waiting += [(middle, stop), (start, middle)]  # the first half is taken first
                continue
            if stop == start or len(lost) == MOST_LOST:
                raise
            lost.append(Lost(start, *failure.args))
    return done, lost
