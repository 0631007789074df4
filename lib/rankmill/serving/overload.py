"""Which requests a scorer takes in: only what ends in time, and lets all that wait already end in time.

A request that is taken in and comes to nothing has cost what others needed. So it is refused at once where it would
wait in vain, and where one that it passes would; see `FairOrder` for who passes whom. Tokens and seconds throughout.
"""

from collections.abc import Iterable
from typing import NamedTuple

PATIENCE = 0.5
"""Share of its time after which a request should have begun."""
MARGIN = 0.75
"""Share of its time after which it should have ended: the speed is an estimate, and the answer has a way to go."""
HOPELESS = 2.0
"""Times its time that a request must take on an idle scorer to be refused: one that is nearly in time is tried."""


class Promise(NamedTuple):
    """What a request that waits was taken in for."""

    tokens: int
    """Without a logit yet."""
    due: float
    """Seconds until `MARGIN` of its time has passed; infinity for one that was only tried."""
    deadline: float
    """Seconds until all of it has."""


def promised(tokens: int, seconds: float, rate: float | None) -> bool:
    """Whether a request that comes where nothing else waits is in time for sure, or only tried; as `hopeless`.

    What was only tried keeps nobody out: those that pass it are few tokens to it, and it is all their time to them.
    """
    return rate is not None and tokens <= MARGIN * seconds * rate


def hopeless(tokens: int, seconds: float, rate: float) -> str | None:
    """Why a request is not even begun where nothing else waits.

    Args:
        tokens: its own.
        seconds: that it has.
        rate: tokens per second.

    Returns:
        A sentence; None to take it in.
    """
    if tokens <= HOPELESS * seconds * rate:
        return None
    return (
        f"Scoring this request takes this model about {tokens / rate:.2g} s, and {seconds:.2g} s are left. "
        "Send fewer documents, or allow more time."
    )


def in_vain(tokens: int, seconds: float, rate: float, *, ahead: int, behind: Iterable[Promise]) -> str | None:
    """Why a request is not taken in beside those that wait.

    Args:
        tokens: its own.
        seconds: that it has.
        rate: tokens per second.
        ahead: tokens that are computed before its own.
        behind: those whom it passes, in their order.

    Returns:
        A sentence; None to take it in.
    """
    until = ahead + tokens
    if ahead > PATIENCE * seconds * rate or until > MARGIN * seconds * rate:
        return f"Scoring this request would take about {until / rate:.2g} s now, and {seconds:.2g} s are left."
    for other in behind:
        until += other.tokens
        lost_anyway = until - tokens > other.deadline * rate
        if until > other.due * rate and not lost_anyway:
            return "Scoring this request now would make one late that was here before it."
    return None
