"""Weights as int8 rows with float32 scales: a quarter of float32's size in a plain safetensors file.

Naming: a quantised matrix `x` (2 or more dimensions, float) becomes two tensors, `x.int8` (int8, the same shape) and
`x.scale` (float32, shape (rows,)); row r is `int8[r] * scale[r]`. Every other tensor keeps its name and its values
(float32). The file's metadata says `{"rankmill_weights": "int8-rows-v1"}`.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rankmill.errors import ModelError

METADATA_KEY = "rankmill_weights"
FORMAT = "int8-rows-v1"
_VALUES, _SCALE = ".int8", ".scale"
_MOST_HEADER_BYTES = 100_000_000  # the safetensors format's own limit


def quantize(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round every float matrix to 255 steps per row, symmetric around 0.

    Args:
        state_dict: finite tensors.

    Returns:
        New tensors named as the module says. Each value of a matrix moves by at most half a step of its row
        (max|row| / 254).

    Raises:
        ModelError: a matrix holds NaN or infinity; names the tensor.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in state_dict.items():
        if not tensor.is_floating_point() or tensor.ndim < 2:
            out[name] = (tensor.float() if tensor.is_floating_point() else tensor).detach().contiguous().clone()
            continue
        matrix = tensor.detach().float().flatten(1)
        if not torch.isfinite(matrix).all():
            raise ModelError(f"The tensor {name} holds NaN or infinity and cannot be stored as int8.")
        # The smallest normal number guards rows of zeros.
        scale = (matrix.abs().amax(1) / 127).clamp_min(torch.finfo(torch.float32).tiny)
        rounded = (matrix / scale.unsqueeze(1)).round().clamp(-127, 127).to(torch.int8)
        out[name + _VALUES] = rounded.view(tensor.shape).contiguous()
        out[name + _SCALE] = scale
    return out


def dequantize(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float32 state dict of quantised tensors.

    Raises:
        ModelError: values without scales, or scales of the wrong shape; names the tensor.
    """
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(_SCALE) and name.removesuffix(_SCALE) + _VALUES in tensors:
            continue
        if not name.endswith(_VALUES):
            out[name] = tensor.float() if tensor.is_floating_point() else tensor
            continue
        base = name.removesuffix(_VALUES)
        scale = tensors.get(base + _SCALE)
        if scale is None or scale.shape != tensor.shape[:1]:
            shape = "missing" if scale is None else f"of shape {tuple(scale.shape)}"
            raise ModelError(f"The scales of {base} are {shape}; its int8 values have shape {tuple(tensor.shape)}.")
        out[base] = tensor.float() * scale.float().view(-1, *[1] * (tensor.ndim - 1))
    return out


def save_int8(state_dict: Mapping[str, Tensor], path: Path) -> None:
    """Quantise and write one safetensors file with the marker in its metadata."""
    save_file(quantize(state_dict), path, metadata={"format": "pt", METADATA_KEY: FORMAT})


def load_int8(path: Path) -> dict[str, Tensor]:
    """Read a file of `save_int8` as a float32 state dict.

    Raises:
        ModelError: the file cannot be read or is not in this format.
    """
    if not is_int8(path):
        raise ModelError(
            f"{path} is not a safetensors file with int8 rows (its metadata lacks {METADATA_KEY}={FORMAT})."
        )
    try:
        return dequantize(load_file(path))
    except SafetensorError as error:
        raise ModelError(f"Cannot read the weights in {path}: {error}") from error


def is_int8(path: Path) -> bool:
    """Whether a safetensors file says that it holds int8 rows; reads its header only, no tensors.

    Raises:
        ModelError: the file is not a safetensors file.
    """
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = stream.read(size) if size <= _MOST_HEADER_BYTES else b""
    try:
        metadata = json.loads(header).get("__metadata__", {})
    except (ValueError, AttributeError):
        raise ModelError(f"{path} is not a safetensors file: its header cannot be read.") from None
    return bool(metadata.get(METADATA_KEY) == FORMAT)
