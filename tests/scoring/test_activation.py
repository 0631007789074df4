"""Scores are computed from logits in full precision, by the function that the model's files name."""

from typing import Any

import numpy as np
import pytest

from rankmill.errors import ModelError
from rankmill.scoring.activation import activate, activation_of

IDENTITY, SIGMOID = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Sigmoid"


def test_sigmoid_is_exact_and_does_not_overflow() -> None:
    logits = np.asarray([-1000, -20, -1, 0, 1, 6.25, 8.375, 15, 1000], dtype=np.float32)
    scores = activate(logits, "sigmoid")
    assert scores.dtype == np.float32
    wide = logits.astype(np.longdouble)
    assert np.array_equal(scores, (1 / (1 + np.exp(-wide))).astype(np.float32))
    assert np.all(np.diff(scores[1:]) > 0)  # bfloat16 would have 1.0 from 6.25 on, float16 from 8.375 on


def test_identity_changes_nothing() -> None:
    logits = np.asarray([-3.5, 0, 11.25], dtype=np.float32)
    assert np.array_equal(activate(logits, "identity"), logits)
    assert activate(np.zeros(0, dtype=np.float32), "sigmoid").shape == (0,)
    with pytest.raises(ModelError, match="'softmax' is not known"):
        activate(logits, "softmax")


@pytest.mark.parametrize(
    ("config", "sentence_transformers", "expected"),
    [
        ({}, {}, "sigmoid"),
        ({"sentence_transformers": {"activation_fn": IDENTITY}}, {}, "identity"),
        ({"sbert_ce_default_activation_function": IDENTITY}, {}, "identity"),
        ({"sbert_ce_default_activation_function": SIGMOID}, {}, "sigmoid"),
        ({"sbert_ce_default_activation_function": None}, {}, "sigmoid"),
        # the newer place wins over the older one
        ({}, {"activation_fn": IDENTITY}, "identity"),
        ({"sentence_transformers": {"activation_fn": IDENTITY}}, {"activation_fn": SIGMOID}, "sigmoid"),
        (
            {"sentence_transformers": {"activation_fn": SIGMOID}, "sbert_ce_default_activation_function": IDENTITY},
            {},
            "sigmoid",
        ),
        (
            {"sentence_transformers": {"version": "4.0"}, "sbert_ce_default_activation_function": IDENTITY},
            {},
            "identity",
        ),
    ],
)
def test_read_from_the_model(config: dict[str, Any], sentence_transformers: dict[str, Any], expected: str) -> None:
    assert activation_of("m", config, sentence_transformers) == expected


def test_code_is_not_run() -> None:
    with pytest.raises(ModelError, match=r"'m' asks for the activation 'os.system'; only torch.nn.Identity"):
        activation_of("m", {"sentence_transformers": {"activation_fn": "os.system"}}, {})
