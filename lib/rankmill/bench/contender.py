"""A peer in the rounds: made ready, timed, checked against our logits, and out as soon as something is wrong."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankmill.bench.found import Compared
from rankmill.bench.measure import Agreement, agreement, rate, speed_ratio, tolerance
from rankmill.bench.peers import Score, Wanted, build
from rankmill.bench.subject import Subject, Survey
from rankmill.errors import RankmillError
from rankmill.scoring.engines.torch_load import quiet

WARM_UP = 256
"""Pairs that are scored before anything is timed."""
_REASON_CHARACTERS = 200


def timed(score: Score) -> tuple[float, NDArray[np.float32]]:
    """Seconds and logits of one pass over all pairs."""
    started = time.perf_counter()
    logits = score()
    return time.perf_counter() - started, logits


class Contender:
    """One peer that was asked for."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.problem: str | None = None
        self._precision = wanted.precision
        self._score: Score | None = None
        self._seconds: list[float] = []
        self._agreement: Agreement | None = None

    def prepare(
        self, subject: Subject, folder: Callable[[], Path], queries: Sequence[str], texts: Sequence[str]
    ) -> None:
        """Load it and warm it up; what keeps it from running becomes its `problem`."""
        try:
            with quiet():  # else progress bars and remarks of transformers stand between our lines
                peer = build(self.wanted, subject, folder)
                self._precision = peer.precision
                peer.prepare(queries[:WARM_UP], texts[:WARM_UP])()
                self._score = peer.prepare(queries, texts)
        except Exception as error:  # noqa: BLE001 - whatever another library meets in a model
            self._give_up(reason(error))

    def run(self, ours: NDArray[np.float32], survey: Survey, precision: str) -> None:
        """One round, unless it is out.

        Args:
            ours: our logits of this round, shape (n,).
            survey: says which pairs every library reads alike.
            precision: ours.
        """
        if self._score is None:
            return
        try:
            seconds, logits = timed(self._score)
        except Exception as error:  # noqa: BLE001 - such as the lack of memory for a longer batch
            self._give_up(reason(error))
            return
        found = agreement(ours, logits, survey.whole, tolerance(precision, self._precision or precision))
        worst = self._agreement
        if worst is None or not found.agrees or (found.difference or 0) > (worst.difference or 0):
            self._agreement = found
        if not found.agrees:
            self._give_up(_disagreement(found))
            return
        self._seconds.append(seconds)

    @property
    def rate_so_far(self) -> float | None:
        """Rounds per second; None for one that is out, or has not run yet."""
        return rate(1, self._seconds) if self._seconds and self.problem is None else None

    def compared(self, ours: Sequence[float], survey: Survey) -> Compared:
        """What is to be shown.

        Args:
            ours: our seconds in the same rounds.
            survey: of the pairs.
        """
        fine = self.problem is None
        return Compared(
            name=str(self.wanted),
            precision=self._precision,
            pairs_per_second=rate(len(survey.lengths), self._seconds) if fine else None,
            tokens_per_second=rate(int(survey.lengths.sum()), self._seconds) if fine else None,
            speed_ratio=speed_ratio(ours, self._seconds) if fine else None,
            agreement=self._agreement,
            problem=self.problem,
        )

    def _give_up(self, problem: str) -> None:
        self.problem = problem
        self._score = None  # with all that it holds


def reason(error: Exception) -> str:
    """One clause about what went wrong."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"not installed: pip install {error.name.replace('_', '-')}"
    words = " ".join(str(error).split())
    return (words if isinstance(error, RankmillError) else f"{type(error).__name__}: {words}")[:_REASON_CHARACTERS]


def _disagreement(found: Agreement) -> str:
    if not found.compared:
        return "wrong: another number of logits"
    if found.difference is None:
        return "wrong: logits that are not finite"
    return f"wrong: logits differ by {found.difference:.2g}, more than {found.tolerance:g}"
