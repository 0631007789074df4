"""A network's pooling and head on hidden states that were computed elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling


class GivenStates(torch.nn.Module):
    """Stands where a network's body was: hands out the hidden states that it is holding.

    Args:
        pooler: of the body that it replaces; it belongs to the head, although transformers keeps it in the body.
    """

    def __init__(self, pooler: Any) -> None:
        super().__init__()
        self.pooler = pooler
        self._states: torch.Tensor | None = None

    @contextmanager
    def holding(self, states: torch.Tensor) -> Iterator[None]:
        """Hand out these states, shape (rows, width, hidden), float32, within the block."""
        self._states = states
        try:
            yield
        finally:
            self._states = None

    def forward(self, *_arguments: Any, **_named: Any) -> Any:
        """What the body would have returned."""
        pooled = None if self.pooler is None else self.pooler(self._states)
        return BaseModelOutputWithPooling(last_hidden_state=self._states, pooler_output=pooled)
