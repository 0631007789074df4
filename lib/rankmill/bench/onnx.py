"""A classification model through ONNX: exported by torch, run by ONNX Runtime; both need packages of their own."""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rankmill.scoring.batches import padded
from rankmill.types import EncodedPairs

_OPSET = 17


class OnnxEngine:
    """Padded micro-batches through an exported model, on the CPU.

    Args:
        network: a classification model of transformers, float32, on the CPU, with plain (`eager`) attention.
        pad_id: token id of padding.
        segments: whether the network takes token_type_ids.
        threads: of the CPU; None is the library's own choice.
    """

    name = "onnxruntime"
    device = "cpu"
    batch_tokens = 2_048

    def __init__(self, network: Any, *, pad_id: int, segments: bool, threads: int | None) -> None:
        import onnxruntime  # noqa: PLC0415 - not a dependency

        self._pad_id = pad_id
        self._segments = segments
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        with tempfile.TemporaryDirectory(prefix="rankmill-onnx-") as folder:
            path = export(network, Path(folder) / "model.onnx", segments=segments)
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self, pairs: EncodedPairs, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Run the forward pass; done when this returns."""
        inputs = padded(pairs, rows, pad_id=self._pad_id, segments=self._segments)
        found: NDArray[np.float32] = self._session.run(["logits"], inputs)[0][:, 0]
        return found

    def collect(self, outputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Join what `run` returned."""
        return np.concatenate(outputs)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether there was no memory for the micro-batch."""
        return isinstance(error, MemoryError)


class _Logits(torch.nn.Module):
    """The model with positional inputs and one output, as the exporter wants it."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        named = {"token_type_ids": rest[0]} if rest else {}
        logits: torch.Tensor = self.network(input_ids=input_ids, attention_mask=attention_mask, **named).logits
        return logits


def export(network: Any, path: Path, *, segments: bool) -> Path:
    """Write a model as ONNX, with free batch and width; torch needs the package `onnx` for it.

    Returns:
        `path`.
    """
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if segments else [])]
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, 5:] = 0  # without padding, a trace would find no need for the mask
    example = (torch.full((2, 9), 5) * mask, mask, *([torch.zeros_like(mask)] if segments else []))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's guesses; logits are compared
        torch.onnx.export(
            _Logits(network).eval(),
            example,
            path,
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: "rows", 1: "width"} for name in names} | {"logits": {0: "rows"}},
            opset_version=_OPSET,
            dynamo=False,  # the other exporter needs onnxscript as well
        )
    return path
