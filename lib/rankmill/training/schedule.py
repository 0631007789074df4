"""What happens at which step, as pure functions of the step number: a resumed run needs no other memory."""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def learning_rate(step: int, steps: int, peak: float, warmup_steps: int, decay: float) -> float:
    """The rate at `step` (from 0) of `steps`: a linear rise, a flat stretch, a linear fall to 0.

    Until the fall begins the rate does not depend on `steps`, so a run may be made longer or shorter until then.

    Args:
        step: steps done before.
        steps: steps in all.
        peak: the rate of the flat stretch.
        warmup_steps: length of the rise.
        decay: share of the steps in which the rate falls, 0..1.
    """
    rising = (step + 1) / (warmup_steps + 1)
    falling = (steps - step) / max(1, steps - flat_until(steps, decay))
    return peak * min(1.0, rising, falling)


def flat_until(steps: int, decay: float) -> int:
    """The first step of the fall."""
    return steps - round(decay * steps)


def lists_of_step(step: int, lists: int, per_step: int, seed: int) -> list[int]:
    """Positions of the lists of one step: endless passes over all lists, each pass in its own seeded order."""
    picked: list[int] = []
    for i in range(step * per_step, (step + 1) * per_step):
        epoch, position = divmod(i, lists)
        picked.append(int(_order(lists, seed, epoch)[position]))
    return picked


def length_of_step(step: int, low: int | None, high: int, seed: int) -> int:
    """Most tokens per pair at one step: `high`, or a seeded log-uniform draw from `low` to `high`."""
    if low is None:
        return high
    draw = np.random.default_rng([seed, 1, step]).uniform(math.log(low), math.log(high))
    return round(math.exp(draw))


@lru_cache(maxsize=2)  # a step touches two passes at most
def _order(lists: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, 0, epoch]).permutation(lists)
