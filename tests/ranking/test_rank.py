"""The order of candidates."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from rankmill.ranking.rank import codes, rank_pairs, retrieval_ranks

pairs = st.lists(
    st.tuples(
        st.integers(0, 4), st.sampled_from([-1.0, 0.0, 0.5, 2.0]), st.sampled_from([1.0, 2.0, 3.0, float("nan")])
    ),
    max_size=40,
)


@given(pairs=pairs, top_k=st.none() | st.integers(1, 5))
def test_equals_sorting_each_query_by_hand(pairs: list[tuple[int, float, float]], top_k: int | None) -> None:
    ids = [f"q{query}" for query, _, _ in pairs]
    query_codes = codes(pa.array(ids, pa.string()))
    logits = np.array([logit for _, logit, _ in pairs], np.float32)
    first = retrieval_ranks(query_codes, np.array([score for _, _, score in pairs]))
    expected: list[tuple[int, int]] = []
    for query in dict.fromkeys(ids):
        positions = [n for n, name in enumerate(ids) if name == query]
        scores = {n: -np.inf if np.isnan(pairs[n][2]) else pairs[n][2] for n in positions}
        by_score = sorted(positions, key=lambda n: (-scores[n], n))
        assert [int(first[n]) for n in by_score] == list(range(1, len(positions) + 1))
        best = sorted(positions, key=lambda n: (-pairs[n][1], by_score.index(n)))
        expected += [(n, rank) for rank, n in enumerate(best, start=1)][:top_k]
    order = rank_pairs(query_codes, logits, first, top_k)
    assert list(zip(order.rows.tolist(), order.rank.tolist(), strict=True)) == expected
    assert order.rank.dtype == np.int32


def test_logits_that_saturate_a_sigmoid_still_decide() -> None:
    logits = np.array([40.0, 41.0, 42.0], np.float32)
    assert rank_pairs(np.zeros(3, np.int64), logits, None, None).rows.tolist() == [2, 1, 0]


def test_empty_in_empty_out() -> None:
    order = rank_pairs(np.zeros(0, np.int64), np.zeros(0, np.float32), None, 3)
    assert len(order.rows) == len(order.rank) == 0
