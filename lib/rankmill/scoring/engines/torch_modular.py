"""Cross-encoders in modules, in the torch engine: the network, then pooling and layers, in float32."""

from typing import TYPE_CHECKING

import torch

from rankmill.scoring.engines.torch_layers import load_body, load_layer, pad_id_of, pool, unit, width_of
from rankmill.scoring.engines.torch_padded import TorchPadded, choose_device, set_up_torch
from rankmill.scoring.modules import check_widths
from rankmill.scoring.options import ScorerOptions

if TYPE_CHECKING:
    from rankmill.scoring.families.modular import Modular


def load_modular(model: "Modular", options: ScorerOptions) -> TorchPadded:
    """Load a cross-encoder's weights.

    Raises:
        ModelError: the weights do not fit the architecture, or the layers each other.
        UsageError: the device is not there, or the engine asked for is another one.
    """
    set_up_torch(options)
    device = choose_device(options)
    network = load_body(model.files, model.body, options, device)
    check_widths(model.files.name, width_of(network) * len(model.poolings), model.weighted)
    layers = [unit if layer is None else load_layer(model.files.name, layer, device) for layer in model.layers]

    def logits(**inputs: torch.Tensor) -> torch.Tensor:
        hidden = network(**inputs).last_hidden_state.float()  # [rows, width, hidden]
        real = inputs["attention_mask"].bool()
        values = torch.cat([pool(name, hidden, real) for name in model.poolings], dim=1)
        for layer in layers:
            values = layer(values)
        return values[:, 0]

    return TorchPadded(logits, device, pad_id=pad_id_of(network), segments=model.template.segments)
