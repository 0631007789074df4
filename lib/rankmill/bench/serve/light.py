"""A cross-encoder of next to no network: what is left of a request is all that is not the forward pass."""

import json
import shutil
from pathlib import Path
from typing import Any

from rankmill.errors import ModelError
from rankmill.scoring.load import check_model
from rankmill.scoring.options import ScorerOptions

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
_HIDDEN = 8


def save_light_model(folder: Path) -> Path:
    """Write one layer of eight numbers a token, with random weights, behind the built-in model's tokenizer.

    Args:
        folder: made here.

    Returns:
        `folder`.

    Raises:
        ModelError: the built-in model is not there.
    """
    import torch  # noqa: PLC0415 - takes seconds, as the next one
    import transformers  # noqa: PLC0415

    from rankmill.scoring.engines.torch_load import quiet  # noqa: PLC0415 - it imports torch

    source = check_model(ScorerOptions("builtin")).folder
    if source is None:
        raise ModelError("The built-in model has no folder to take the tokenizer from.")
    folder.mkdir()
    for name in _TOKENIZER:
        shutil.copy(source / name, folder / name)
    given = json.loads((source / "config.json").read_text())
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config_class: Any = transformers.BertConfig  # its own type leaves out what every model has
        config = config_class(
            vocab_size=given["vocab_size"],
            max_position_embeddings=given["max_position_embeddings"],
            hidden_size=_HIDDEN,
            intermediate_size=_HIDDEN,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_labels=1,
            initializer_range=0.2,  # 0.02, the usual, gives every pair the same logit
        )
        transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder
