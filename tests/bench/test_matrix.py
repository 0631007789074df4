"""The rate that others are held against: the fastest engine's, each asked for the same product."""

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch

from rankmill.bench.matrix import Best, MatrixProduct, best

OPENVINO = importlib.util.find_spec("openvino") is not None


@pytest.mark.parametrize(
    ("precision", "engines"),
    [
        ("float32", {"torch", "openvino"} if OPENVINO else {"torch"}),
        ("float16", {"torch"}),
        ("int8", set()),
    ],
)
def test_every_engine_at_hand_is_asked(precision: str, engines: set[str]) -> None:
    rates = MatrixProduct("cpu", precision, 1, size=64).rates()
    assert rates.keys() == engines
    assert all(rate > 0 for rate in rates.values())


@pytest.mark.skipif(not OPENVINO, reason="OpenVINO is not installed")
def test_openvino_multiplies_the_same_factors() -> None:
    made = MatrixProduct("cpu", "float32", 1, size=64)
    draw = torch.Generator().manual_seed(0)
    left, right = (torch.randn(64, 64, generator=draw) for _ in range(2))
    product: Any = made._products["openvino"]()
    assert np.allclose(product, left @ right, atol=1e-4)


def test_the_highest_median_counts() -> None:
    rounds = [{"torch": 5.0, "openvino": 8.0}, {"torch": 30.0, "openvino": 7.0}, {"torch": 4.0, "openvino": 9.0}]
    assert best(rounds) == Best("openvino", [8.0, 7.0, 9.0])
    assert best(rounds[1:2]) == Best("torch", [30.0])
    assert best([{}, {}]) is None
    assert best([]) is None
