"""The last layer for the first token alone, where the head reads nothing else.

BERT, ELECTRA, RoBERTa and XLM-RoBERTa classify by their first token's vector. Every other token matters up to the last
layer, and in it only as key and value: its query, its projection and its feed-forward network, ten twelfths of the
layer's work, would be thrown away. With 6 layers that is a seventh of the whole model. The logits stay the same.
"""

from typing import Any

import torch
from torch.nn import functional


def keep_first_token(network: Any) -> None:
    """Replace the last layer of a model whose layers are built like BERT's; its hidden states have width 1 then."""
    layers = network.base_model.encoder.layer
    layers[-1] = LastLayer(layers[-1])


class LastLayer(torch.nn.Module):
    """Stands where the last layer was.

    Args:
        layer: of transformers: `attention.self.{query, key, value}`, `attention.output`, `feed_forward_chunk`.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, *_rest: Any, **_named: Any
    ) -> torch.Tensor:
        """Hidden states of shape (rows, width, hidden) in, (rows, 1, hidden) out."""
        attention = self.layer.attention.self
        first = hidden_states[:, :1]
        query = _heads(attention.query(first), attention.attention_head_size)
        key = _heads(attention.key(hidden_states), attention.attention_head_size)
        value = _heads(attention.value(hidden_states), attention.attention_head_size)
        mask = None if attention_mask is None else attention_mask[:, :, :1]
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=attention.scaling)
        mixed = mixed.transpose(1, 2).flatten(2)  # [rows, 1, hidden]
        states: torch.Tensor = self.layer.feed_forward_chunk(self.layer.attention.output(mixed, first))
        return states


def _heads(states: torch.Tensor, size: int) -> torch.Tensor:
    """(rows, width, hidden) to (rows, heads, width, size)."""
    return states.view(*states.shape[:2], -1, size).transpose(1, 2)
