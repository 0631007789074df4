"""Which errors end a process, and which only say the same words."""

import pytest

from rankmill.errors import ModelError
from rankmill.scoring.poison import poisons


class AcceleratorError(RuntimeError):
    """Called as PyTorch's own, which only a GPU raises."""


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (AcceleratorError("CUDA error: device-side assert triggered"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (RuntimeError("no score for: CUDA error"), False),
        (ValueError("CUDA error: what a document said"), False),
        (ModelError("The scoring endpoint answered CUDA error: it must answer scores."), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_only_pytorchs_own_end_a_process(error: Exception, ends: bool) -> None:  # noqa: FBT001
    assert poisons(error) is ends
