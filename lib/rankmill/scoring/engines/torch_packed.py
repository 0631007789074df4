"""Padding-free micro-batches on a GPU: all tokens of a batch in one row, through transformers' own model code.

transformers hands a forward pass's extra keywords down to its attention function, and lets us register our own: it gets
the cumulative lengths and attends within each pair alone, with torch's `varlen_attn` (flash attention). Positions start
again at every pair. Pooling and head then see one vector per pair.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface

from rankmill.scoring.batches import packed
from rankmill.scoring.engines.given_states import GivenStates
from rankmill.scoring.engines.torch_device import fetch, is_out_of_memory, move
from rankmill.types import EncodedPairs

NAME = "rankmill_packed"
_BATCH_TOKENS = 65_536


class TorchPacked:
    """Padding-free micro-batches through a classification model of transformers.

    Args:
        network: loaded with `attn_implementation=NAME` (see `register`), on `device`.
        device: where it is; on a CPU, attention runs pair by pair, which is for tests.
        first_position: position id of a pair's first token: 0, or `pad_token_id + 1` (RoBERTa).
        segments: whether the network takes token_type_ids.
        mean_pooling: whether the head reads the mean of all tokens instead of the first one.
    """

    name = "torch"
    batch_tokens = _BATCH_TOKENS

    def __init__(
        self, network: Any, device: torch.device, *, first_position: int, segments: bool, mean_pooling: bool
    ) -> None:
        self.device = device.type
        self._torch_device = device
        self._first_position = first_position
        self._segments = segments
        self._mean_pooling = mean_pooling
        self._body = network.base_model
        self._given = GivenStates(getattr(network.base_model, "pooler", None))
        setattr(network, network.base_model_prefix, self._given)
        self._head = network

    def run(self, pairs: EncodedPairs, rows: NDArray[np.int64]) -> torch.Tensor:
        """Start the forward pass; on a GPU the result is still being computed when this returns."""
        inputs = packed(pairs, rows, first_position=self._first_position, segments=self._segments)
        offsets = inputs.pop("offsets")
        lengths = np.diff(offsets)
        starts = move(offsets, self._torch_device)
        with torch.inference_mode():
            states = self._body(
                **{name: move(array, self._torch_device).unsqueeze(0) for name, array in inputs.items()},
                cumulative_lengths=starts.to(torch.int32),
                longest=int(lengths.max()),
            )[0][0]  # [total, hidden]
            pooled = self._pool(states, starts, lengths).unsqueeze(1)  # [n, 1, hidden]
            ones = torch.ones(pooled.shape[:2], dtype=torch.int64, device=self._torch_device)
            with self._given.holding(pooled):
                output = self._head(input_ids=ones, attention_mask=ones)
            logits: torch.Tensor = output.logits[:, 0]
            return logits.float()

    def collect(self, outputs: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """Fetch logits from the device, all at once."""
        return fetch(outputs)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether the device, or the allocator of the CPU, had no room."""
        return is_out_of_memory(error)

    def _pool(self, states: torch.Tensor, starts: torch.Tensor, lengths: NDArray[np.int64]) -> torch.Tensor:
        if not self._mean_pooling:
            return states[starts[:-1]].float()
        wide = states.float()
        sizes = move(lengths, wide.device)
        owners = torch.repeat_interleave(torch.arange(len(lengths), device=wide.device), sizes)
        sums = torch.zeros(len(lengths), wide.shape[1], device=wide.device).index_add_(0, owners, wide)
        return sums / sizes.unsqueeze(1)


def register() -> None:
    """Make the attention function known to transformers under `NAME`; again is fine."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, lambda *_arguments, **_named: None)  # the lengths say it all


def _attention(
    _module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cumulative_lengths: torch.Tensor,
    longest: int,
    **_named: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each pair: query, key and value of shape (1, heads, total, width)."""
    # transformers counts a window's own token: |i - j| < sliding_window
    window = -1 if sliding_window is None else sliding_window - 1
    queries, keys, values = (tensor[0].transpose(0, 1) for tensor in (query, key, value))  # [total, heads, width]
    if query.device.type == "cuda":
        from torch.nn.attention.varlen import varlen_attn  # noqa: PLC0415 - needs a build with CUDA

        mixed: Any = varlen_attn(
            queries,
            keys,
            values,
            cumulative_lengths,
            cumulative_lengths,
            longest,
            longest,
            scale=scaling,
            window_size=(window, window),
            num_splits=1,  # else how a pair is summed up would depend on who shares its batch
        )
    else:
        mixed = _pair_by_pair([queries, keys, values], cumulative_lengths.tolist(), scaling, window)
    return mixed.unsqueeze(0), None


def _pair_by_pair(flat: list[torch.Tensor], offsets: list[int], scaling: float | None, window: int) -> torch.Tensor:
    parts = []
    for start, end in itertools.pairwise(offsets):
        query, key, value = (tensor[start:end].transpose(0, 1) for tensor in flat)  # [heads, length, width]
        mask = None
        if window >= 0:
            positions = torch.arange(end - start)
            mask = (positions[:, None] - positions).abs() <= window
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
        parts.append(mixed.transpose(0, 1))
    return torch.cat(parts)
