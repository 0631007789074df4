"""`--batch-tokens auto`: measured once, remembered, and never a budget that does not fit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rankmill.scoring import probe
from rankmill.scoring.load import load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.pair_scorer import PairScorer
from rankmill.types import EncodedPairs


class Device:
    """An engine whose time is what its formula says; larger batches than `room` do not fit."""

    name, device, batch_tokens = "torch", "cpu", 2_048

    def __init__(self, room: int) -> None:
        self.room = room
        self.runs = 0

    def run(self, pairs: EncodedPairs, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        self.runs += 1
        if int(pairs.lengths[rows].max()) * len(rows) > self.room:
            raise MemoryError
        return np.zeros(len(rows), dtype=np.float32)

    def collect(self, outputs: Sequence[Any]) -> NDArray[np.float32]:
        return np.concatenate(outputs)

    def is_out_of_memory(self, error: BaseException) -> bool:
        return isinstance(error, MemoryError)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKMILL_CACHE", str(tmp_path))
    return tmp_path


def test_a_budget_that_does_not_fit_is_left_out() -> None:
    assert set(probe.measure(Device(room=1_100), max_length=128)) == {512, 1_024}
    assert set(probe.measure(Device(room=100_000), max_length=128)) == {512, 1_024, 2_048, 4_096, 8_192}


def test_it_is_remembered(cache: Path) -> None:
    device = Device(room=100_000)
    found = probe.good_budget(device, "key", 128)
    assert found in {512, 1_024, 2_048, 4_096, 8_192}
    runs = device.runs
    assert probe.good_budget(device, "key", 128) == found
    assert device.runs == runs
    (cache / "batch_tokens" / "key.json").write_text("{")
    probe.good_budget(device, "key", 128)
    assert device.runs > runs, "a damaged note is measured again"


def test_a_real_scorer_takes_it(tiny: Mapping[str, Path], cache: Path) -> None:
    scorer = load_scorer(ScorerOptions(model=str(tiny["bert"]), batch_tokens="auto"))
    assert isinstance(scorer, PairScorer)
    assert scorer.batch_tokens in {512, 1_024, 2_048, 4_096, 8_192}
    assert len(list((cache / "batch_tokens").iterdir())) == 1
    assert len(scorer.logits(scorer.encode(["a"], ["b"]))) == 1
