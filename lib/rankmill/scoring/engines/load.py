"""Loads a cross-encoder's weights into the engine that was chosen."""

import logging
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from rankmill.errors import ModelError
from rankmill.scoring.engines.choose import choose
from rankmill.scoring.engines.engine import Engine
from rankmill.scoring.engines.first_token import keep_first_token
from rankmill.scoring.engines.torch_load import load_network
from rankmill.scoring.engines.torch_packed import NAME, TorchPacked, register
from rankmill.scoring.engines.torch_padded import TorchPadded, set_up_torch, torch_machine
from rankmill.scoring.options import ScorerOptions

if TYPE_CHECKING:
    from rankmill.scoring.families.classifier import Classifier

log = logging.getLogger(__name__)


def load_classifier(model: "Classifier", options: ScorerOptions) -> Engine:
    """Load a cross-encoder's weights.

    Raises:
        ModelError: the weights do not fit the architecture, or the engine asked for cannot take the model.
        UsageError: the device or the engine is not there.
    """
    parameters = sum(prod(tensor.shape) for tensor in model.files.tensors.values())
    choice = choose(options, torch_machine(), parameters=parameters, convertible=True)
    set_up_torch(options)
    if choice.engine == "openvino":
        from rankmill.scoring.engines.openvino import OpenVino  # noqa: PLC0415 - an extra

        try:
            network = _network(model, "float32", torch.device("cpu"))
            if model.family.first_token:
                keep_first_token(network)
            engine: Engine = OpenVino(
                model.files,
                network,
                precision=options.precision,
                threads=options.threads,
                pad_id=_pad_id(network),
                segments=model.template.segments,
            )
        except ModelError as error:
            if options.engine == "openvino":
                raise
            log.warning("%s Going on with torch.", error)
        else:
            log.info("engine openvino, %s: %s", options.precision, choice.why)
            return engine
    engine = _torch(model, options.precision, torch.device(choice.device))
    log.info("engine torch on %s, %s: %s", choice.device, options.precision, choice.why)
    return engine


def _torch(model: "Classifier", precision: str, device: torch.device) -> Engine:
    if device.type == "cuda" and precision != "float32" and model.family.attention == "sdpa":
        return load_packed(model, precision, device)  # flash attention computes in 16 bits only
    network = _network(model, precision, device)
    if model.family.first_token:
        keep_first_token(network)

    def logits(**inputs: Any) -> torch.Tensor:
        found: torch.Tensor = network(**inputs).logits[:, 0]
        return found.float()

    return TorchPadded(logits, device, pad_id=_pad_id(network), segments=model.template.segments)


def load_packed(model: "Classifier", precision: str, device: torch.device) -> Engine:
    """Load a cross-encoder for padding-free batches."""
    register()
    network = _network(model, precision, device, attention=NAME)
    first_position = _pad_id(network) + 1 if model.family.positions_after_padding else 0
    mean_pooling = getattr(network.config, "classifier_pooling", "cls") == "mean"
    return TorchPacked(
        network,
        device,
        first_position=first_position,
        segments=model.template.segments,
        mean_pooling=mean_pooling,
    )


def _network(model: "Classifier", precision: str, device: torch.device, attention: str | None = None) -> Any:
    family = model.family
    return load_network(
        model.files,
        family.architecture,
        precision,
        device,
        unused=family.unused,
        attention=attention or family.attention,
    )


def _pad_id(network: Any) -> int:
    padding: int | None = network.config.pad_token_id
    return 0 if padding is None else padding
