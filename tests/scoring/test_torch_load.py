"""A network is loaded in the precision that was asked for, its head in float32, with the attention that it has."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from rankmill.scoring.engines.torch_load import load_network
from rankmill.scoring.families.classifier import Classifier
from rankmill.scoring.load import read_model
from rankmill.scoring.options import ScorerOptions
from tests.tiny_models import FAMILIES


def network(folder: Path, precision: str) -> Any:
    model = read_model(ScorerOptions(model=str(folder)))
    assert isinstance(model, Classifier)
    family = model.family
    return load_network(model.files, family.architecture, precision, torch.device("cpu"), attention=family.attention)


@pytest.mark.parametrize("family", FAMILIES)
def test_pooler_and_head_stay_in_float32(tiny: Mapping[str, Path], family: str) -> None:
    loaded = network(tiny[family], "bfloat16")
    body = loaded.base_model_prefix + "."
    wide = {name for name, weight in loaded.named_parameters() if weight.dtype == torch.float32}
    assert wide == {name for name, _ in loaded.named_parameters() if not name.startswith(body) or ".pooler." in name}
    assert "classifier" in {name.split(".")[0] for name in wide}


@pytest.mark.parametrize("family", FAMILIES)
def test_attention(tiny: Mapping[str, Path], family: str) -> None:
    """There is no fused attention for DeBERTa, whose scores depend on relative positions."""
    expected = "eager" if family == "deberta-v2" else "sdpa"
    assert network(tiny[family], "float32").config._attn_implementation == expected
