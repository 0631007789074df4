"""What is measured in a round, each with both sides in turn."""

import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from rankmill.bench.measure import speed_ratio
from rankmill.bench.serve.asks import Ask
from rankmill.bench.serve.client import Reply
from rankmill.bench.serve.found import Overhead, Passing, Throughput
from rankmill.bench.serve.sides import Bare, BareReply, Served
from rankmill.errors import RankmillError

_IDLE = 5
"""Small requests timed alone, in a round."""
_DURING = 10
"""Small requests timed during a large one, at most."""
_PAUSE = 0.03
"""Between them, as a share of the large request's time, so that they come at other moments of a forward pass."""


@dataclass(slots=True)
class OverheadTurns:
    """Requests of one size, one at a time."""

    model: str
    bare: Bare
    served: Served
    asks: Iterator[Ask]
    bare_replies: list[BareReply] = field(default_factory=list)
    served_replies: list[Reply] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    difference: float = 0.0

    def run(self, count: int, tolerance: float) -> None:
        """Score each request twice, the other side first every other time.

        Raises:
            RankmillError: the sides do not agree.
        """
        for number in range(count):
            ask = next(self.asks)
            if number % 2:
                reply = self.served.ask(ask)
                bare = self.bare.ask(ask)
            else:
                bare = self.bare.ask(ask)
                reply = self.served.ask(ask)
            self.bare_replies.append(bare)
            self.served_replies.append(reply)
            self.tokens.append(self.bare.tokens(ask))
            found = float(np.abs(reply.logits(self.served.key) - bare.logits).max())
            self.difference = max(self.difference, found)
            if not found <= tolerance:
                raise RankmillError(
                    f"The server's logits of {self.model} are {found:.2g} away from the bare scorer's, more than "
                    f"{tolerance:g}: there is nothing to compare."
                )

    def found(self) -> Overhead:
        """All rounds together."""
        pairs = list(zip(self.served_replies, self.bare_replies, strict=True))
        longer = [1000 * (served.seconds - bare.seconds) for served, bare in pairs]
        prepared = [1000 * (served.phases["prepare"] - bare.encode_seconds) for served, bare in pairs]
        scored = [1000 * (served.phases["score"] - bare.forward_seconds) for served, bare in pairs]
        rest = [all_of_it - one - other for all_of_it, one, other in zip(longer, prepared, scored, strict=True)]
        low, high = np.percentile(longer, [25, 75]).tolist()
        return Overhead(
            model=self.model,
            requests=len(longer),
            tokens=statistics.fmean(self.tokens),
            bare_ms=1000 * statistics.median(reply.seconds for reply in self.bare_replies),
            served_ms=1000 * statistics.median(reply.seconds for reply in self.served_replies),
            overhead_ms=statistics.median(longer),
            prepare_ms=statistics.median(prepared),
            score_ms=statistics.median(scored),
            rest_ms=statistics.median(rest),
            spread_ms=high - low,
            logit_difference=self.difference,
        )


@dataclass(slots=True)
class ThroughputTurns:
    """Mixed requests, many at a time."""

    bare: Bare
    served: Served
    asks: Sequence[Ask]
    bare_seconds: list[float] = field(default_factory=list)
    served_seconds: list[float] = field(default_factory=list)

    def run(self, number: int) -> None:
        """One round; the other side first every other time."""
        if number % 2:
            self.served_seconds.append(self.served.flood(self.asks))
            self.bare_seconds.append(self.bare.all(self.asks))
        else:
            self.bare_seconds.append(self.bare.all(self.asks))
            self.served_seconds.append(self.served.flood(self.asks))

    @property
    def pairs(self) -> int:
        """Of a round."""
        return sum(len(ask.documents) for ask in self.asks)

    def found(self, concurrency: int) -> Throughput:
        """All rounds together."""
        return Throughput(
            concurrency=concurrency,
            requests=len(self.asks),
            pairs=self.pairs,
            bare_pairs_per_second=self.pairs / statistics.median(self.bare_seconds),
            served_pairs_per_second=self.pairs / statistics.median(self.served_seconds),
            to_bare=1 / speed_ratio(self.bare_seconds, self.served_seconds),
        )


@dataclass(slots=True)
class PassingTurns:
    """Small requests alone, and while a large one is being scored."""

    served: Served
    small: Ask
    large: Ask
    large_seconds: float = 0.0
    idle: list[float] = field(default_factory=list)
    during: list[float] = field(default_factory=list)
    """Medians of rounds, as `idle` are; of a round without any it is left out of both."""
    all_idle: list[float] = field(default_factory=list)
    requests: int = 0

    def warm(self) -> None:
        """Ask for both once; how long the large one takes decides when the small ones come."""
        self.served.ask(self.small)
        self.served.ask(self.large)
        self.large_seconds = self.served.ask(self.large).seconds

    def run(self) -> None:
        """One round."""
        idle = statistics.median(self.served.ask(self.small).seconds for _ in range(_IDLE))
        self.all_idle.append(idle)
        during = self._during()
        if during:
            self.idle.append(idle)
            self.during.append(statistics.median(during))
            self.requests += len(during)

    def _during(self) -> list[float]:
        large = _InBackground(self.served, self.large)
        time.sleep(0.1 * self.large_seconds)
        found: list[float] = []
        while len(found) < _DURING:
            seconds = self.served.ask(self.small).seconds
            if large.is_over:
                break
            found.append(seconds)
            time.sleep(_PAUSE * self.large_seconds)
        large.result()
        return found

    def found(self) -> Passing:
        """All rounds together."""
        ratios = [during / idle for during, idle in zip(self.during, self.idle, strict=True)]
        return Passing(
            small=len(self.small.documents),
            large=len(self.large.documents),
            large_ms=1000 * self.large_seconds,
            idle_ms=1000 * statistics.median(self.all_idle),
            during_ms=1000 * statistics.median(self.during) if ratios else None,
            ratio=statistics.median(ratios) if ratios else None,
            requests=self.requests,
        )


class _InBackground:
    """One request in a thread of its own."""

    def __init__(self, served: Served, ask: Ask) -> None:
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(served, ask), daemon=True)
        self._thread.start()

    def _run(self, served: Served, ask: Ask) -> None:
        try:
            served.ask(ask)
        except Exception as error:  # noqa: BLE001 - raised where the result is asked for
            self._error = error

    @property
    def is_over(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> None:
        self._thread.join()
        if self._error is not None:
            raise self._error
