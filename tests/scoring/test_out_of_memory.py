"""A device that runs out of memory: smaller batches, and only the pair that cannot fit at all is given up."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rankmill.errors import PairTooLargeError
from rankmill.scoring.load import load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.pair_scorer import PairScorer
from rankmill.types import EncodedPairs

TEXTS = ["sea level", "lazy dog " * 3, "Water boils at 100 degrees " * 3, "x", "fox " * 60, "y", "dog"] * 3


class SmallDevice:
    """A real engine on a device that holds no more than so many padded tokens."""

    def __init__(self, engine: Any, tokens: int) -> None:
        self.name, self.device, self.batch_tokens = engine.name, engine.device, engine.batch_tokens
        self.collect, self.is_out_of_memory = engine.collect, engine.is_out_of_memory
        self._engine = engine
        self._tokens = tokens
        self.runs = 0
        self.error: Exception = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def run(self, pairs: EncodedPairs, rows: NDArray[np.int64]) -> Any:
        self.runs += 1
        if int(pairs.lengths[rows].max()) * len(rows) > self._tokens:
            raise self.error
        return self._engine.run(pairs, rows)


def scorers(folder: Path, tokens: int) -> tuple[PairScorer, PairScorer, SmallDevice]:
    options = ScorerOptions(model=str(folder), batch_tokens=4_096)
    whole = load_scorer(options)
    assert isinstance(whole, PairScorer)
    device = SmallDevice(whole.engine, tokens)
    return whole, PairScorer(whole.card, whole._encoder, device, options), device


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory: you tried"),
    ],
    ids=["gpu", "python", "cpu"],
)
def test_batches_are_made_smaller_once_and_for_all(tiny: Mapping[str, Path], error: Exception) -> None:
    whole, small, device = scorers(tiny["bert"], tokens=200)
    device.error = error
    pairs = whole.encode(["water"] * len(TEXTS), TEXTS)
    assert int(pairs.lengths.max()) <= 200
    assert np.abs(small.logits(pairs) - whole.logits(pairs)).max() < 1e-5
    first = device.runs
    small.logits(pairs)
    assert device.runs - first < first, "the second call knew the size that fits"
    assert small.batch_tokens <= 200


def test_only_the_pair_that_cannot_fit_is_given_up(tiny: Mapping[str, Path]) -> None:
    whole, small, _ = scorers(tiny["bert"], tokens=60)
    pairs = whole.encode(["water"] * len(TEXTS), TEXTS)
    large = np.flatnonzero(pairs.lengths > 60).tolist()
    assert 0 < len(large) < len(TEXTS)
    with pytest.raises(PairTooLargeError, match=f"{len(large)} of {len(TEXTS)} pairs do not fit") as caught:
        small.logits(pairs)
    assert list(caught.value.pairs) == large
    assert pickle.loads(pickle.dumps(caught.value)).pairs == caught.value.pairs  # noqa: S301 - our own


def test_another_error_is_not_taken_for_it(tiny: Mapping[str, Path]) -> None:
    whole, small, device = scorers(tiny["bert"], tokens=1)
    device.error = RuntimeError("CUDA error: device-side assert triggered")
    with pytest.raises(RuntimeError, match="device-side assert"):
        small.logits(whole.encode(["a"], ["b"]))
