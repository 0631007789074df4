"""Micro-batches hold every pair once and no more tokens than they may."""

import math
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rankmill.scoring.packing import CPU_BATCH, pack, padding

LENGTHS = st.lists(st.integers(min_value=0, max_value=600), max_size=200).map(lambda x: np.asarray(x, dtype=np.int64))


@given(LENGTHS, st.integers(min_value=1, max_value=5000))
def test_every_pair_once_within_the_budget_longest_first(lengths: np.ndarray, budget: int) -> None:
    batches = pack(lengths, budget)
    order = np.concatenate(batches) if batches else np.zeros(0, dtype=np.int64)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert all(len(batch) == 1 or lengths[batch].max() * len(batch) <= budget for batch in batches)
    assert np.all(np.diff(lengths[order]) <= 0)


@given(LENGTHS, st.integers(min_value=1, max_value=5000))
def test_padding_is_bounded(lengths: np.ndarray, budget: int) -> None:
    """Sorted, the lengths inside the batches add up to one descent from the longest to the shortest."""
    batches = pack(lengths, budget)
    paid = padding(lengths, batches)
    assert paid >= 0
    if len(lengths):
        assert paid <= padding(lengths, [np.arange(len(lengths))])  # everything in one batch
        rows = max(len(batch) for batch in batches)
        assert paid <= rows * (lengths.max() - lengths.min())


def test_by_hand() -> None:
    lengths = np.asarray([3, 10, 4, 4, 25, 9], dtype=np.int64)
    batches = [batch.tolist() for batch in pack(lengths, 20)]
    # 25 exceeds the budget: alone. 10 and 9: 2 x 10. 4, 4, 3: 3 x 4, and nothing is left
    assert batches == [[4], [1, 5], [2, 3, 0]]
    assert padding(lengths, pack(lengths, 20)) == 2
    assert pack(np.zeros(0, dtype=np.int64), 20) == []


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.integers(1, 200), st.integers(0, 100))
def test_no_other_way_to_cut_costs_less(lengths: list[int], budget: int, fixed: int) -> None:
    longest_first = sorted(lengths, reverse=True)

    def cost(cuts: int) -> float:
        """Of the sorted pairs, cut after each place whose bit is set."""
        ends = [at + 1 for at in range(len(lengths)) if cuts >> at & 1 or at == len(lengths) - 1]
        total = 0
        for start, end in pairwise([0, *ends]):
            tokens = longest_first[start] * (end - start)
            if tokens > budget and end - start > 1:
                return math.inf
            total += tokens + fixed
        return total

    batches = pack(np.asarray(lengths, dtype=np.int64), budget, fixed)
    found = sum(max(lengths[i] for i in batch) * len(batch) + fixed for batch in batches)
    assert found == min(cost(cuts) for cuts in range(2 ** (len(lengths) - 1)))


def test_a_long_pair_pads_no_short_ones_on_a_cpu_and_shares_their_batch_elsewhere() -> None:
    lengths = np.asarray([500, *[20] * 3], dtype=np.int64)
    assert [len(batch) for batch in pack(lengths, 2048, CPU_BATCH)] == [1, 3]
    assert [len(batch) for batch in pack(lengths, 2048)] == [4]
