"""Statistics of repeated measurements: medians, paired ratios, and whether two sides computed the same."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_EXACT = 1e-3
_ROUNDED = 5e-2
"""Of logits: float32 in another order of summation; anything narrower."""


def rate(amount: float, seconds: Sequence[float]) -> float:
    """Amount per second: the median over rounds that each did all of it."""
    return statistics.median(amount / second for second in seconds)


def speed_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """How many times as fast we are: the median of the rounds' own ratios.

    Noise that lasts longer than a round, such as a neighbour on the machine, slows both sides of a pair and cancels.

    Args:
        ours: seconds per round.
        theirs: seconds of the same work in the same rounds.
    """
    return statistics.median(their / our for our, their in zip(ours, theirs, strict=True))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the values that at least `percent` of them do not exceed: p99 of 20 values is their maximum."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far another's logits are from ours."""

    compared: int
    """Pairs; those that are cut to fit are left out, because libraries cut differently."""
    difference: float | None
    """The largest, absolute; None where nothing was compared, or where a logit is not finite."""
    tolerance: float
    agrees: bool
    """False also for one logit that is not finite; True where nothing could be compared."""


def agreement(
    ours: NDArray[np.float32], theirs: NDArray[np.float32], comparable: NDArray[np.bool_], tolerance: float
) -> Agreement:
    """Compare logits, shape (n,) each; a peer that gave another number of them does not agree."""
    if ours.shape != theirs.shape:
        return Agreement(0, None, tolerance, agrees=False)
    compared = int(comparable.sum())
    if not compared:
        return Agreement(0, None, tolerance, agrees=True)
    difference = float(np.abs(ours[comparable].astype(np.float64) - theirs[comparable]).max())
    finite = math.isfinite(difference)
    return Agreement(compared, difference if finite else None, tolerance, agrees=finite and difference <= tolerance)


def tolerance(*precisions: str) -> float:
    """The largest difference of logits that the coarsest of these precisions explains."""
    return _EXACT if set(precisions) == {"float32"} else _ROUNDED
