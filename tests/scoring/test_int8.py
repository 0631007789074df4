"""The int8 file format: error bounds, the marker, and what damaged files say."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rankmill.errors import ModelError
from rankmill.scoring.int8 import dequantize, is_int8, load_int8, quantize, save_int8


def state_dict() -> dict[str, torch.Tensor]:
    """Matrices with large and tiny rows, a row of zeros, a bias, integer positions."""
    torch.manual_seed(0)
    matrix = torch.randn(16, 24) * torch.logspace(-5, 2, 16).unsqueeze(1)
    matrix[3] = 0.0
    return {
        "dense.weight": matrix,
        "dense.bias": torch.randn(16),
        "position_ids": torch.arange(10),
        "head.weight": torch.randn(1, 24),
    }


def test_every_value_comes_back_within_half_a_step_of_its_row() -> None:
    before = state_dict()
    after = dequantize(quantize(before))
    assert after.keys() == before.keys()
    matrix = before["dense.weight"]
    step = matrix.abs().amax(1, keepdim=True) / 127
    assert torch.all((after["dense.weight"] - matrix).abs() <= 0.501 * step)  # .001 for float32's own rounding
    assert torch.all(after["dense.weight"][3] == 0)


def test_vectors_and_integers_are_kept_exactly() -> None:
    before = state_dict()
    after = dequantize(quantize(before))
    assert torch.equal(after["dense.bias"], before["dense.bias"])
    assert torch.equal(after["position_ids"], before["position_ids"])


def test_rounding_twice_changes_nothing_more() -> None:
    once = dequantize(quantize(state_dict()))
    twice = dequantize(quantize(once))
    assert torch.allclose(once["head.weight"], twice["head.weight"], rtol=1e-5, atol=0)


def test_a_file_is_a_quarter_of_float32_and_carries_the_marker(tmp_path: Path) -> None:
    weights = {"body.weight": torch.randn(512, 384)}
    save_int8(weights, tmp_path / "small.safetensors")
    save_file(weights, tmp_path / "large.safetensors")
    assert is_int8(tmp_path / "small.safetensors")
    assert not is_int8(tmp_path / "large.safetensors")
    ratio = (tmp_path / "small.safetensors").stat().st_size / (tmp_path / "large.safetensors").stat().st_size
    assert ratio < 0.26
    assert set(load_file(tmp_path / "small.safetensors")) == {"body.weight.int8", "body.weight.scale"}
    loaded = load_int8(tmp_path / "small.safetensors")["body.weight"]
    assert loaded.dtype == torch.float32
    assert torch.allclose(loaded, weights["body.weight"], atol=0.03)


def test_half_precision_weights_come_back_as_float32() -> None:
    after = dequantize(quantize({"a.weight": torch.randn(4, 4).half(), "a.bias": torch.randn(4).bfloat16()}))
    assert {tensor.dtype for tensor in after.values()} == {torch.float32}


def test_a_matrix_with_nan_is_refused_by_name() -> None:
    with pytest.raises(ModelError, match=r"tensor head\.weight holds NaN"):
        quantize({"head.weight": torch.tensor([[1.0, float("nan")]])})


def test_values_without_scales_are_refused_by_name() -> None:
    tensors = quantize(state_dict())
    del tensors["head.weight.scale"]
    with pytest.raises(ModelError, match=r"scales of head\.weight are missing"):
        dequantize(tensors)


def test_a_plain_file_and_a_broken_file_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(ModelError, match="is not a safetensors file with int8 rows"):
        load_int8(tmp_path / "plain.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not a safetensors file at all")
    with pytest.raises(ModelError, match="its header cannot be read"):
        is_int8(tmp_path / "broken.safetensors")
    save_int8({"a": torch.randn(8, 8)}, tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-10])
    with pytest.raises(ModelError, match="Cannot read the weights"):
        load_int8(tmp_path / "cut.safetensors")
