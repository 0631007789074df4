"""Measuring: the figures, by hand."""

from pathlib import Path

import numpy as np
import pytest

from rankmill.settings.train import MeasureSettings
from rankmill.training.measure import bootstrap_interval, measure, mix, per_query


def test_a_judged_query_without_results_counts_as_zero() -> None:
    qrels = {"a": {"d1": 1}, "b": {"d1": 1}, "c": {"d2": 1}}
    run = {"a": {"d1": 2.0, "d2": 1.0}, "c": {"d1": 2.0, "d2": 1.0}}
    assert per_query(qrels, run) == pytest.approx([1.0, 0.0, 1 / np.log2(3)])


def test_the_interval_holds_the_mean_and_narrows_with_more_queries() -> None:
    values = np.random.default_rng(1).normal(0.1, 0.3, 400)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    few_low, few_high = bootstrap_interval(values[:25])
    assert few_high - few_low > 2 * (high - low)
    assert bootstrap_interval(values) == (low, high)


def test_mixing_adds_z_scores_and_ignores_constant_ones() -> None:
    first, second = {"a": 10.0, "b": 0.0, "c": 5.0}, {"c": 0.2, "a": 0.1, "b": 0.0}
    mixed = mix(first, second)
    assert mixed["b"] < mixed["a"]
    assert mixed["a"] == pytest.approx(mixed["c"], abs=1e-9)
    assert mix(first, dict.fromkeys(first, 1.0)) == mix(dict.fromkeys(first, 1.0), first)


def test_the_shipped_model_is_measured_through_the_scorer(collection: Path) -> None:
    gain = measure(MeasureSettings(collections=[collection], threads=1))[0]
    assert (gain.name, gain.queries, gain.pairs) == ("tiny", 3, 18)
    # The run is in document order: "wind" is fifth, "snow" sixth, "moon" third. Any reranker finds a single word.
    assert gain.before == pytest.approx((0.3869 + 0.3562 + 0.5) / 3, abs=1e-3)
    assert gain.after > 0.9
    assert gain.low <= gain.after - gain.before <= gain.high
