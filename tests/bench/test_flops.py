"""Arithmetic of a forward pass, against numbers worked out by hand."""

from typing import Any

import numpy as np
import pytest

from rankmill.bench.flops import model_flops

MINILM = {"model_type": "bert", "num_hidden_layers": 6, "hidden_size": 384, "intermediate_size": 1536}
LARGE = {"model_type": "xlm-roberta", "num_hidden_layers": 24, "hidden_size": 1024, "intermediate_size": 4096}
SMALL = {"num_hidden_layers": 3, "hidden_size": 2, "intermediate_size": 5}


def flops(config: dict[str, Any], *lengths: int, first_token: bool = False) -> float | None:
    return model_flops(config, np.asarray(lengths, dtype=np.int64), first_token=first_token)


def test_known_shapes() -> None:
    # a layer of MiniLM: 4 * 384² + 2 * 384 * 1536 = 1,769,472 weights; 6 of them, twice: 21.2 MFLOP per token
    assert flops(MINILM, 131) == 21_233_664 * 131 + 6 * 4 * 131**2 * 384
    assert flops(MINILM, 131) == pytest.approx(2.94e9, rel=1e-3)
    one = flops(LARGE, 1)
    assert one is not None
    assert one == pytest.approx(0.604e9, rel=1e-3)


def test_pairs_add_up() -> None:
    # 3 layers * (2 n (4 * 4 + 2 * 10) + 4 n² * 2): n = 1: 3 * (72 + 8); n = 10: 3 * (720 + 800)
    assert flops({"model_type": "electra", **SMALL}, 1) == 240
    assert flops({"model_type": "roberta", **SMALL}, 10) == 4560
    assert flops({"model_type": "bert", **SMALL}, 1, 10, 10) == 240 + 2 * 4560
    assert flops({"model_type": "bert", **SMALL}) == 0


def test_the_last_layer_may_be_for_one_token() -> None:
    # two layers as above: n = 10: 2 * 1520. The last: keys and values 2 n 2 * 4 = 160; query, output and feed-forward
    # network of one token 2 (2 * 4 + 2 * 10) = 56; one query with n keys and values 4 n * 2 = 80
    bert = {"model_type": "bert", **SMALL}
    assert flops(bert, 10, first_token=True) == 2 * 1520 + 160 + 56 + 80
    assert flops(bert, 10, 10, first_token=True) == 2 * (2 * 1520 + 160 + 56 + 80)
    assert flops(bert, 1, first_token=True) == flops(bert, 1)
    whole, less = flops(MINILM, 200), flops(MINILM, 200, first_token=True)
    assert whole is not None
    assert less is not None
    assert 0.85 < less / whole < 0.88  # about a seventh less, as engines/first_token.py says


@pytest.mark.parametrize(
    "layers",
    [{"global_attn_every_n_layers": 3}, {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]}],
)
def test_modernbert_has_a_gate_and_windows(layers: dict[str, Any]) -> None:
    config = {"model_type": "modernbert", "local_attention": 4, **SMALL, **layers}
    # 3 layers * 2 n (4 * 4 + 3 * 10) = 276 n; attention of one layer 8 n², of the two others 8 n min(n, 4)
    assert flops(config, 3) == 276 * 3 + 3 * 8 * 9
    assert flops(config, 10) == 276 * 10 + 8 * 100 + 2 * 8 * 40


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "deberta-v2", **SMALL},  # positions are multiplied as well
        {"model_type": "qwen3", **SMALL},
        {"model_type": "bert", "num_hidden_layers": 3, "hidden_size": 2},
        {},
    ],
)
def test_other_kinds_are_not_known(config: dict[str, Any]) -> None:
    assert flops(config, 10) is None
