"""From logits to scores, the way the model's own files say."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankmill.errors import ModelError

_NAMES = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.Identity": "identity",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.Sigmoid": "sigmoid",
}


def activate(logits: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """Turn logits into scores.

    The sigmoid is computed in float64 and rounded once. In bfloat16 it would be exactly 1 from logit 6.25 on, and in
    float32 from 17.33 on: above that, distinct logits tie, which is why rankings are made from logits.

    Args:
        logits: float32, any shape.
        name: `identity` or `sigmoid`.

    Returns:
        float32, the shape of `logits`.

    Raises:
        ModelError: `name` is neither.
    """
    if name == "identity":
        return np.asarray(logits, dtype=np.float32)
    if name == "sigmoid":
        # exp(-|x|) never overflows
        small = np.exp(-np.abs(np.asarray(logits, dtype=np.float64)))
        return np.where(np.asarray(logits) >= 0, 1.0 / (1.0 + small), small / (1.0 + small)).astype(np.float32)
    raise ModelError(f"The activation {name!r} is not known; it must be 'identity' or 'sigmoid'.")


def activation_of(
    model: str, config: Mapping[str, Any], sentence_transformers: Mapping[str, Any], *, default: str = "sigmoid"
) -> str:
    """Read the activation from a model's files, in the order in which sentence-transformers' CrossEncoder does.

    `config_sentence_transformers.json` (`activation_fn`), then config.json's `sentence_transformers` section
    (`activation_fn`), then its older `sbert_ce_default_activation_function`; a single-label model that states none has
    a sigmoid. Source: `CrossEncoder._parse_model_config` and `get_default_activation_fn`, sentence-transformers 6.2.

    Args:
        model: the model's name, for messages.
        config: config.json.
        sentence_transformers: config_sentence_transformers.json, or empty.
        default: for files that state none.

    Returns:
        `identity` or `sigmoid`.

    Raises:
        ModelError: the files name something else.
    """
    section = config.get("sentence_transformers")
    stated = sentence_transformers.get("activation_fn")
    if stated is None and isinstance(section, Mapping) and "activation_fn" in section:
        stated = section["activation_fn"]
    elif stated is None:
        stated = config.get("sbert_ce_default_activation_function")
    if stated is None:
        return default
    name = _NAMES.get(str(stated))
    if name is None:
        raise ModelError(
            f"The model {model!r} asks for the activation {stated!r}; only torch.nn.Identity and torch.nn.Sigmoid are "
            "known, because anything else would mean running code named by a file."
        )
    return name
