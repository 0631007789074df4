"""What torch engines ask of their device, whatever they compute on it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def move(array: NDArray[Any], device: torch.device) -> torch.Tensor:
    """Bring an array to a device; to a GPU without waiting for it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def fetch(outputs: Sequence[torch.Tensor]) -> NDArray[np.float32]:
    """Join tensors and bring them here, all at once: a GPU never waits for the CPU to fetch one batch."""
    joined: NDArray[np.float32] = torch.cat(list(outputs)).cpu().numpy()
    return joined


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device, or the allocator of the CPU, had no room."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "not enough memory" in str(error)
    )
