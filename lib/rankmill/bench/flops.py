"""The arithmetic of a model's forward pass, from its config.json."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Matrices of the feed-forward network, each hidden size times intermediate size: up and down; a gated one has a third.
_FEED_FORWARD = {"bert": 2, "electra": 2, "roberta": 2, "xlm-roberta": 2, "modernbert": 3}


def model_flops(config: Mapping[str, Any], lengths: NDArray[np.int64], *, first_token: bool = False) -> float | None:
    """Floating-point operations that pairs need, without padding: a multiplication and an addition are two.

    Counted are the products of all layers: per layer and pair of `n` tokens, `2 n (4 H² + k H F)` in projections and
    feed-forward network and `4 n² H` in attention, or `4 n min(n, window) H` in a layer with a window. Embeddings,
    norms and the head are left out, less than a hundredth of it.

    Args:
        config: config.json of a cross-encoder.
        lengths: tokens per forward pass, shape (n,).
        first_token: the head reads the first token alone, so that the last layer needs keys and values of all tokens,
            and everything else of one.

    Returns:
        None for a kind of model whose arithmetic is another, or is not known here.
    """
    matrices = _FEED_FORWARD.get(str(config.get("model_type")))
    sizes = [config.get(name) for name in ("num_hidden_layers", "hidden_size", "intermediate_size")]
    if matrices is None or not all(isinstance(size, int) for size in sizes):
        return None
    layers, hidden, inner = (int(size) for size in sizes if size is not None)
    n = lengths.astype(np.float64)
    asking = [n] * (layers - 1) + [np.ones_like(n) if first_token else n]  # tokens with a query, layer by layer
    found = 0.0
    for queries, window in zip(asking, _windows(config, layers), strict=True):
        keys_and_values = 2 * hidden**2 * n.sum()
        all_else = (2 * hidden**2 + matrices * hidden * inner) * queries.sum()
        attention = 2 * hidden * (queries * np.minimum(n, window)).sum()
        found += 2 * (keys_and_values + all_else + attention)
    return float(found)


def _windows(config: Mapping[str, Any], layers: int) -> list[float]:
    """Tokens that a token attends to at most, per layer."""
    if config.get("model_type") != "modernbert":
        return [np.inf] * layers
    # transformers < 5 wrote the period, later ones a list
    period, kinds = config.get("global_attn_every_n_layers") or 3, config.get("layer_types")
    full = (
        [kind == "full_attention" for kind in kinds]
        if isinstance(kinds, list)
        else [layer % period == 0 for layer in range(layers)]
    )
    window = config.get("local_attention") or 128
    return [np.inf if everywhere else float(window) for everywhere in full]
