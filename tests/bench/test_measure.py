"""Statistics, exactly."""

import numpy as np
import pytest

from rankmill.bench.measure import agreement, percentile, rate, speed_ratio, tolerance


def test_medians() -> None:
    assert rate(100, [1, 4, 2]) == 50
    assert rate(100, [1, 4]) == (100 + 25) / 2


def test_a_ratio_is_that_of_its_own_round() -> None:
    """The machine is three times as slow in the second round, for both."""
    assert speed_ratio([1, 3, 1], [2, 6, 2]) == 2
    assert speed_ratio([1, 1, 1, 1], [1, 2, 4, 9]) == 3
    with pytest.raises(ValueError, match="shorter"):
        speed_ratio([1, 1], [1])


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(n) for n in range(1, 101)][::-1]
    assert [percentile(values, percent) for percent in (50, 95, 99, 100)] == [50, 95, 99, 100]
    assert percentile([3, 1, 2], 50) == 2
    assert percentile([3, 1, 2], 99) == 3
    assert percentile([7], 50) == 7


def test_agreement_looks_at_comparable_pairs_only() -> None:
    ours = np.asarray([0, 1, 2], dtype=np.float32)
    theirs = np.asarray([0.25, 9, 2], dtype=np.float32)
    whole = np.asarray([True, False, True])
    found = agreement(ours, theirs, whole, 0.25)
    assert (found.compared, found.difference, found.agrees) == (2, 0.25, True)
    assert not agreement(ours, theirs, whole, 0.24).agrees
    assert not agreement(ours, theirs, ~whole, 1).agrees


def test_agreement_of_what_cannot_be_compared() -> None:
    ours = np.zeros(2, dtype=np.float32)
    none = agreement(ours, ours + 9, np.zeros(2, dtype=np.bool_), 1)
    assert (none.compared, none.difference, none.agrees) == (0, None, True)
    everything = np.ones(2, dtype=np.bool_)
    broken = agreement(ours, np.asarray([0, np.nan], dtype=np.float32), everything, 1)
    assert (broken.difference, broken.agrees) == (None, False)
    assert not agreement(ours, np.zeros(3, dtype=np.float32), everything, 1).agrees


def test_the_coarser_side_decides() -> None:
    assert tolerance("float32", "float32") == 1e-3
    assert tolerance("float32", "bfloat16") == tolerance("int8", "float32") == tolerance("float16") == 5e-2
