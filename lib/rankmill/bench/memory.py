"""Peak memory from a moment on."""

from contextlib import suppress
from pathlib import Path

import torch

from rankmill.batch.machine import peak_bytes

_CLEAR = Path("/proc/self/clear_refs")


def start() -> None:
    """Forget what was used so far, such as by the conversion of a model; where the system cannot, it stays counted."""
    with suppress(OSError):
        _CLEAR.write_text("5")  # Linux: sets the peak back to what is resident now
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peaks() -> tuple[int, int | None]:
    """Peak resident memory of this process, and what torch held of the GPU's, in bytes; None without a GPU."""
    gpu = int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None
    return peak_bytes(), gpu
