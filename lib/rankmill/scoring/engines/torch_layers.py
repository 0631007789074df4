"""A network without a head in torch, and what sentence-transformers puts after it: pooling, dense layers, norms.

Everything after the network is computed in float32, whatever the network's precision.
"""

from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import load_file
from torch.nn import functional

from rankmill.errors import ModelError
from rankmill.scoring.engines.torch_load import load_network
from rankmill.scoring.families.bodies import Body
from rankmill.scoring.model_files import ModelFiles
from rankmill.scoring.modules import Dense, Norm
from rankmill.scoring.options import ScorerOptions

Layer = Callable[[torch.Tensor], torch.Tensor]

_ACTIVATIONS: dict[str, Layer] = {
    "identity": lambda x: x,
    "tanh": torch.tanh,
    "relu": functional.relu,
    "gelu": functional.gelu,
}


def load_body(files: ModelFiles, body: Body, options: ScorerOptions, device: torch.device, *unused: str) -> Any:
    """Load the network; `unused` are weights in its file that belong elsewhere.

    Raises:
        ModelError: the weights do not fit the architecture.
    """
    return load_network(
        files,
        body.architecture,
        options.precision,
        device,
        unused=(*body.unused, *unused),
        attention=body.attention,
        arguments=body.arguments,
    )


def width_of(network: Any) -> int:
    """How many numbers a hidden state has."""
    return int(network.config.hidden_size)


def pad_id_of(network: Any) -> int:
    """What fills up a batch."""
    padding: int | None = network.config.pad_token_id
    return 0 if padding is None else padding


def load_layer(model: str, layer: Dense | Norm, device: torch.device) -> Layer:
    """Load a layer that comes after the network, in float32.

    Raises:
        ModelError: its weights are no floating-point numbers.
    """
    state = {name: tensor for name, tensor in load_file(layer.path).items() if name in layer.tensors}
    if any(not tensor.is_floating_point() for tensor in state.values()):
        raise ModelError(f"The layer {layer.path} of the model {model!r} does not hold floating-point weights.")
    weights = {name: tensor.float().to(device) for name, tensor in state.items()}
    return _norm(weights) if isinstance(layer, Norm) else _dense(layer, weights)


def unit(values: torch.Tensor) -> torch.Tensor:
    """Bring the last dimension to unit length."""
    return functional.normalize(values, dim=-1)


def pool(name: str, hidden: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """One vector per sequence.

    Args:
        name: `cls`, `max`, `mean` or `lasttoken`.
        hidden: hidden states, shape (n, longest, hidden size), padding on the right.
        real: which tokens are no padding: bool, shape (n, longest).
    """
    if name == "cls":
        return hidden[:, 0]
    if name == "lasttoken":
        return hidden[torch.arange(len(hidden), device=hidden.device), real.sum(dim=1) - 1]
    if name == "max":
        return hidden.masked_fill(~real[:, :, None], -torch.inf).amax(dim=1)
    return (hidden * real[:, :, None]).sum(dim=1) / real.sum(dim=1, keepdim=True)


def _dense(layer: Dense, weights: dict[str, torch.Tensor]) -> Layer:
    activation = _ACTIVATIONS[layer.activation]

    def run(values: torch.Tensor) -> torch.Tensor:
        found = activation(functional.linear(values, weights["linear.weight"], weights.get("linear.bias")))
        if not layer.residual:
            return found
        through = weights.get("residual.weight")
        return found + (values if through is None else functional.linear(values, through))

    return run


def _norm(weights: dict[str, torch.Tensor]) -> Layer:
    weight, bias = weights["norm.weight"], weights["norm.bias"]
    return lambda values: functional.layer_norm(values, weight.shape, weight, bias)
