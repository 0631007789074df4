"""A network is loaded in the precision that was asked for, its head in float32, with the attention that it has."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from rankmill.scoring.engines.torch_load import load_network
from rankmill.scoring.families.causal import LanguageModel
from rankmill.scoring.families.classifier import Classifier
from rankmill.scoring.load import read_model
from rankmill.scoring.options import ScorerOptions
from tests.scoring.tiny_llms import LLMS, save_tiny_llm
from tests.tiny_models import FAMILIES, save_tiny_model

KINDS = (*FAMILIES, *LLMS)


def network(folder: Path, precision: str) -> Any:
    model, cpu = read_model(ScorerOptions(model=str(folder))), torch.device("cpu")
    if isinstance(model, LanguageModel):
        return load_network(model.files, model.architecture, precision, cpu)
    assert isinstance(model, Classifier)
    return load_network(model.files, model.family.architecture, precision, cpu, attention=model.family.attention)


def saved(folder: Path, kind: str, dtype: torch.dtype) -> Path:
    """A tiny model with a file in `dtype`."""
    made = save_tiny_llm(folder, kind) if kind in LLMS else save_tiny_model(folder, kind)
    weights = made / "model.safetensors"
    state = {name: tensor.to(dtype) for name, tensor in load_file(weights).items()}
    save_file(state, weights, metadata={"format": "pt"})
    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_pooler_and_head_stay_in_float32(tiny: Mapping[str, Path], family: str) -> None:
    loaded = network(tiny[family], "bfloat16")
    body = loaded.base_model_prefix + "."
    wide = {name for name, weight in loaded.named_parameters() if weight.dtype == torch.float32}
    assert wide == {name for name, _ in loaded.named_parameters() if not name.startswith(body) or ".pooler." in name}
    assert "classifier" in {name.split(".")[0] for name in wide}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_narrow_weights_are_the_wide_ones_rounded(tmp_path: Path, kind: str, stored: torch.dtype) -> None:
    folder = saved(tmp_path, kind, stored)
    wide, narrow = network(folder, "float32"), network(folder, "float16")
    assert type(narrow) is type(wide)
    expected = dict(wide.named_parameters())
    found = dict(narrow.named_parameters())
    assert found.keys() == expected.keys()
    assert {weight.dtype for weight in expected.values()} == {torch.float32}
    assert torch.float16 in {weight.dtype for weight in found.values()}
    for name, weight in found.items():
        assert torch.equal(weight, expected[name].to(weight.dtype)), name
    buffers = dict(wide.named_buffers())  # such as rotary frequencies, never narrow
    for name, buffer in narrow.named_buffers():
        assert buffer.dtype == buffers[name].dtype
        assert torch.equal(buffer, buffers[name]), name


class _Made(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the numbers of every tensor that an operation makes in memory, by type."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers: dict[torch.dtype, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {tensor.untyped_storage().data_ptr() for tensor in args if isinstance(tensor, torch.Tensor)}
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.device.type == "cpu":
            new = found.untyped_storage().data_ptr() not in given
            self.numbers[found.dtype] = self.numbers.get(found.dtype, 0) + found.numel() * new
        return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_body_is_never_there_in_float32(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")  # in this thread, where it can be watched
    folder = saved(tmp_path, kind, torch.bfloat16)
    body = sum(weight.numel() for weight in network(folder, "float32").base_model.parameters())
    with _Made() as wide:
        network(folder, "float32")
    assert wide.numbers[torch.float32] >= body
    with _Made() as narrow:
        loaded = network(folder, "float16")
    head = sum(weight.numel() for weight in loaded.parameters() if weight.dtype == torch.float32)
    assert narrow.numbers.get(torch.float32, 0) <= head + 0.05 * body  # and rotary frequencies
    assert narrow.numbers[torch.float16] <= body  # each weight once


_MEASURE = """
import re, sys
from pathlib import Path
from tests.scoring.test_torch_load import network

def peak() -> int:
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

network(Path(sys.argv[2]), "bfloat16")  # what is imported on the way
before = peak()
network(Path(sys.argv[1]), "bfloat16")
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell a process's peak memory")
def test_a_language_model_needs_its_own_size_in_memory(tmp_path: Path) -> None:
    import transformers  # noqa: PLC0415

    small = saved(tmp_path / "small", "qwen3", torch.bfloat16)
    large = saved(tmp_path / "large", "qwen3", torch.bfloat16)
    config = transformers.Qwen3Config.from_pretrained(small)
    config.hidden_size, config.intermediate_size = 1024, 16_384
    wide: Any = transformers.Qwen3ForCausalLM
    wide(config).to(torch.bfloat16).save_pretrained(large)
    size = (large / "model.safetensors").stat().st_size
    assert size > 250_000_000
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(large), str(small)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 1.25 * size


@pytest.mark.parametrize("family", FAMILIES)
def test_attention(tiny: Mapping[str, Path], family: str) -> None:
    """There is no fused attention for DeBERTa, whose scores depend on relative positions."""
    expected = "eager" if family == "deberta-v2" else "sdpa"
    assert network(tiny[family], "float32").config._attn_implementation == expected
