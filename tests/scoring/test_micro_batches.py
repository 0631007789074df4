"""Whatever the lengths and the budget: every pair is computed once, within the budget, and answered in its place."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rankmill.scoring.card import ModelCard
from rankmill.scoring.load import read_model
from rankmill.scoring.model import Encoder
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.pair_scorer import PairScorer
from rankmill.types import EncodedPairs

LENGTHS = st.lists(st.integers(min_value=1, max_value=200), max_size=60)


class SumOfTokens:
    """An engine whose network adds up token ids; it notes what it was asked to run."""

    name, device, batch_tokens = "sum", "cpu", 512

    def __init__(self) -> None:
        self.ran: list[list[int]] = []

    def run(self, pairs: EncodedPairs, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        self.ran.append(rows.tolist())
        sums = [pairs.token_ids[pairs.offsets[i] : pairs.offsets[i + 1]].sum() for i in rows]
        return np.asarray(sums, dtype=np.float32)

    def collect(self, outputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.concatenate(list(outputs))

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError)


@pytest.fixture(scope="module")
def builtin() -> tuple[ModelCard, Encoder]:
    model = read_model(ScorerOptions())
    return model.card("float32"), model.encoder()


def encoded(lengths: list[int]) -> EncodedPairs:
    """Pairs whose tokens are all the pair's own number."""
    numbers = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    n = len(lengths)
    return EncodedPairs(numbers, offsets, np.zeros(n, dtype=np.int32), np.zeros(n, dtype=np.bool_))


@settings(deadline=None)
@given(LENGTHS, st.integers(min_value=1, max_value=2000))
def test_every_pair_once_and_in_its_place(builtin: tuple[ModelCard, Encoder], lengths: list[int], budget: int) -> None:
    engine = SumOfTokens()
    scorer = PairScorer(*builtin, engine, ScorerOptions(batch_tokens=budget))
    logits = scorer.logits(encoded(lengths))
    assert logits.tolist() == [number * length for number, length in enumerate(lengths)]
    assert sorted(row for rows in engine.ran for row in rows) == list(range(len(lengths)))
    assert all(len(rows) == 1 or max(lengths[row] for row in rows) * len(rows) <= budget for rows in engine.ran)
