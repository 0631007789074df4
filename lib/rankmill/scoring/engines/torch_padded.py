"""The torch engine: padded micro-batches through transformers' own model code."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from rankmill.scoring.batches import padded
from rankmill.scoring.engines.choose import Machine, choose, this_machine
from rankmill.scoring.engines.torch_device import fetch, is_out_of_memory, move
from rankmill.scoring.options import ScorerOptions
from rankmill.types import EncodedPairs

# Activations of a batch should stay in the CPU's cache: on two cores, 1,024 to 2,048 tokens were the fastest. A GPU
# wants its multiprocessors filled instead.
_BATCH_TOKENS = {"cpu": 2_048, "cuda": 65_536}


def choose_device(options: ScorerOptions) -> torch.device:
    """The device for a model that only torch can run.

    Raises:
        UsageError: it is not there, or the engine asked for is another one.
    """
    return torch.device(choose(options, torch_machine(), parameters=0, convertible=False).device)


def torch_machine() -> Machine:
    """What this machine has, as torch sees it: a build for CPUs has no use for a GPU."""
    return replace(this_machine(), gpus=torch.cuda.device_count())


def set_up_torch(options: ScorerOptions) -> None:
    """Set the threads and the determinism of the whole process, where they were asked for.

    Deterministic means: the same call gives the same bits on the same machine. What shares a batch with whom follows
    from the call alone; what is left are GPU kernels that add up in any order, which are switched off here.
    """
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
        torch.use_deterministic_algorithms(True)


class TorchPadded:
    """Padded micro-batches through a torch module.

    Args:
        network: takes `input_ids`, `attention_mask` and, with `segments`, `token_type_ids` as keywords (int64, shape
            (rows, width), padding on the right) and returns one logit per row: float32, shape (rows,).
        device: where the network is.
        pad_id: token id of padding.
        segments: whether the network takes token_type_ids.
    """

    name = "torch"

    def __init__(
        self, network: Callable[..., torch.Tensor], device: torch.device, *, pad_id: int, segments: bool
    ) -> None:
        self.device = device.type
        self.batch_tokens = _BATCH_TOKENS[device.type]
        self._network = network
        self._torch_device = device
        self._pad_id = pad_id
        self._segments = segments

    def run(self, pairs: EncodedPairs, rows: NDArray[np.int64]) -> torch.Tensor:
        """Start the forward pass; on a GPU the result is still being computed when this returns."""
        inputs = padded(pairs, rows, pad_id=self._pad_id, segments=self._segments)
        with torch.inference_mode():
            return self._network(**{name: move(array, self._torch_device) for name, array in inputs.items()})

    def collect(self, outputs: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """Fetch logits from the device, all at once."""
        return fetch(outputs)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether the device, or the allocator of the CPU, had no room."""
        return is_out_of_memory(error)
