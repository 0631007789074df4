"""What every engine offers."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rankmill.types import EncodedPairs


class Engine(Protocol):
    """Runs a model's forward pass on one device."""

    @property
    def name(self) -> str:
        """`torch` or `openvino`."""

    @property
    def device(self) -> str:
        """`cpu` or `cuda`."""

    @property
    def batch_tokens(self) -> int:
        """A good budget of tokens per micro-batch, padding included, where none was asked for."""

    def run(self, pairs: EncodedPairs, rows: NDArray[np.int64]) -> Any:
        """Start the forward pass of the pairs at `rows` (longest first); may return before the device is done."""

    def collect(self, outputs: Sequence[Any]) -> NDArray[np.float32]:
        """Wait for what `run` returned and join it: one logit per pair, float32, in the order of the calls."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an exception of `run` or `collect` says that the micro-batch was too large."""
