"""Is the difference between two runs more than the luck of these queries?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankmill.evaluation.evaluate import Evaluation

RESAMPLES = 10_000
CONFIDENCE = 0.95
_EQUAL = 1e-9  # below the noise of summing float64; no measure has a difference this small and real
_MAX_DRAWS = 2**22  # query indices held at once: 32 MiB


@dataclass(frozen=True, slots=True)
class Difference:
    """One measure of a run against the same measure of a baseline."""

    measure: str
    baseline: float
    """Mean over the judged queries."""
    run: float
    low: float
    """Lower end of the 95 % interval of the difference."""
    high: float
    better: int
    """Queries on which the run beats the baseline."""
    worse: int
    equal: int

    @property
    def difference(self) -> float:
        """Run minus baseline."""
        return self.run - self.baseline


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two evaluations over the same judgements."""

    run: Evaluation
    baseline: Evaluation
    differences: tuple[Difference, ...]
    """One per measure."""


def compare(run: Evaluation, baseline: Evaluation, seed: int = 0) -> Comparison:
    """Means, differences and their intervals.

    The interval is the percentile interval of a paired bootstrap (Efron & Tibshirani, "An Introduction to the
    Bootstrap", 1993, chapter 13): draw as many queries as there are, with replacement, 10,000 times; take the mean
    difference of each draw; the interval runs from the 2.5th to the 97.5th percentile. Pairing matters: hard queries
    are hard for both. The same draws serve all measures, and one seed gives one answer.

    Args:
        run: the evaluation of interest.
        baseline: what it is compared with; the same judgements and measures.
        seed: of the draws.
    """
    if (run.measures, run.query_ids) != (baseline.measures, baseline.query_ids):
        raise ValueError("The two evaluations differ in judged queries or measures; evaluate both in the same way.")
    differences = run.values - baseline.values  # [measures, queries]
    low, high = bootstrap_interval(differences, seed)
    better = np.count_nonzero(differences > _EQUAL, axis=1)
    worse = np.count_nonzero(differences < -_EQUAL, axis=1)
    rows = tuple(
        Difference(
            measure=measure,
            baseline=float(baseline.means[row]),
            run=float(run.means[row]),
            low=float(low[row]),
            high=float(high[row]),
            better=int(better[row]),
            worse=int(worse[row]),
            equal=len(run.query_ids) - int(better[row]) - int(worse[row]),
        )
        for row, measure in enumerate(run.measures)
    )
    return Comparison(run, baseline, rows)


def bootstrap_interval(
    differences: NDArray[np.float64], seed: int, resamples: int = RESAMPLES
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of the percentile bootstrap interval of the mean along the last axis.

    Args:
        differences: shape (measures, queries), at least one query.
        seed: of the draws.
        resamples: number of draws.

    Returns:
        Lower and upper ends, shape (measures,) each.
    """
    measures, queries = differences.shape
    generator = np.random.default_rng(seed)
    means = np.empty((measures, resamples))
    step = max(1, _MAX_DRAWS // queries)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        draws = generator.integers(0, queries, size=(stop - start, queries))  # [draws, queries]
        for row in range(measures):
            means[row, start:stop] = differences[row][draws].mean(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=1)
    return low, high
