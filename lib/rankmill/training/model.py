"""The model that is trained: a body with a one-label head, and how it is written to a folder."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from rankmill.errors import ModelError
from rankmill.scoring.families import classifier
from rankmill.scoring.files import Tensor, read_json, read_json_if_any
from rankmill.scoring.int8 import is_int8, load_int8, save_int8
from rankmill.scoring.locate import Location
from rankmill.scoring.model_files import ModelFiles
from rankmill.scoring.model_tokenizer import ModelTokenizer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.tokenizer_files import with_config

# Scores between 0 and 1: the pointwise loss trains sigmoid(logit) towards the (squashed) target.
_ACTIVATION = "torch.nn.modules.activation.Sigmoid"
_OUR_MACHINE = {"_name_or_path", "transformers_version", "is_local", "local_files_only", "backend"}
_BODYS_LENGTHS = {
    "max_length",
    "stride",
    "truncation_strategy",
    "truncation_side",
    "pad_to_multiple_of",
    "pad_token_type_id",
}
_FROZEN = "embeddings.word_embeddings"


def load_body(body: str, *, dropout: float, seed: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A `...ForSequenceClassification` with one label on top of a body, float32, and the body's tokenizer.

    A new head is drawn with `seed`, so that two runs start from the same weights. A folder that `write_model` wrote
    keeps its head, int8 weights included.

    Raises:
        ModelError: the folder or hub id cannot be loaded.
    """
    torch.manual_seed(seed)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    verbosity = transformers_logging.get_verbosity()
    # It would warn about the new head, which is the point.
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        config = AutoConfig.from_pretrained(body, num_labels=1)
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            if hasattr(config, name):
                setattr(config, name, dropout)
        model = _model(body, config)
        tokenizer = AutoTokenizer.from_pretrained(body)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"Cannot load the body {body!r}: {str(error).splitlines()[0]} Give a local folder or a hub id."
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    return model, tokenizer


def _model(body: str, config: PreTrainedConfig) -> PreTrainedModel:
    weights = Path(body) / "model.safetensors"
    if weights.is_file() and is_int8(weights):
        build: Any = AutoModelForSequenceClassification
        model: PreTrainedModel = build.from_config(config, dtype=torch.float32)
        model.load_state_dict(load_int8(weights))
    else:
        model = AutoModelForSequenceClassification.from_pretrained(
            body, config=config, dtype=torch.float32, use_safetensors=True
        )
    return model


def freeze_word_embeddings(model: PreTrainedModel) -> None:
    """Leave the word embeddings as they are: a third of the weights, and rare words gain nothing from few examples.

    Raises:
        ModelError: the model has no parameter of that name.
    """
    frozen = [parameter for name, parameter in model.named_parameters() if _FROZEN in name]
    if not frozen:
        raise ModelError(f"--freeze-embeddings: the model has no parameter named *{_FROZEN}*; leave the flag out.")
    for parameter in frozen:
        parameter.requires_grad_(False)


def forward(model: PreTrainedModel, inputs: Mapping[str, NDArray[np.int64]], *, bf16: bool) -> torch.Tensor:
    """Logits of one micro-batch, as `rankmill.scoring.batches.padded` makes it: shape (batch,), float32."""
    device = model.device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        output = model(**{name: torch.from_numpy(array).to(device) for name, array in inputs.items()})
    logits: torch.Tensor = output.logits
    return logits.squeeze(-1).float()


def served(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int) -> classifier.Classifier:
    """The model as the scorer will see it once it is written: its pair format, and what makes its tokens.

    Raises:
        ModelError: the scorer could not use it, which is better said before training than after it.
        UsageError: `max_length` is more than the model has positions for, or leaves no room for a document.
    """
    name = str(model.config.name_or_path)
    with TemporaryDirectory() as folder:
        location = Location(name, Path(folder), None)
        _write_small_files(model, tokenizer, location.folder)
        tokenizer_config = read_json_if_any(name, location.folder / "tokenizer_config.json")
        files = ModelFiles(
            location=location,
            config=read_json(name, location.folder / "config.json"),
            tokenizer=ModelTokenizer(
                name, with_config(name, read_json(name, location.folder / "tokenizer.json"), tokenizer_config)
            ),
            tokenizer_config=tokenizer_config,
            sentence_transformers={},
            sentence_bert={},
            weights=(),
            tensors={key: Tensor("F32", tuple(value.shape)) for key, value in model.state_dict().items()},
        )
    return classifier.read(files, ScorerOptions(max_length=max_length))


def write_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, *, int8: bool) -> None:
    """Write config, tokenizer and weights.

    Args:
        model: the trained model.
        tokenizer: its tokenizer.
        folder: made if missing.
        int8: int8 rows with scales (`rankmill.scoring.int8`) instead of float32.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if int8:
        save_int8(model.state_dict(), folder / "model.safetensors")
    else:
        model.save_pretrained(folder)
    _write_small_files(model, tokenizer, folder)


def _write_small_files(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    config = model.config
    settings = {name: value for name, value in json.loads(config.to_json_string()).items() if name not in _OUR_MACHINE}
    settings |= {"architectures": [type(model).__name__], "sentence_transformers": {"activation_fn": _ACTIVATION}}
    _write_json(settings, folder / "config.json")
    tokenizer.model_max_length = min(int(tokenizer.model_max_length), int(config.max_position_embeddings))
    tokenizer.save_pretrained(folder)
    # A bi-encoder's files may hold its own truncation and padding (all-MiniLM-L6-v2: always 128 tokens), which tools
    # that read tokenizer.json alone would obey.
    stored = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    _write_json(stored | {"truncation": None, "padding": None}, folder / "tokenizer.json")
    stored = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    kept = {name: value for name, value in stored.items() if name not in _OUR_MACHINE | _BODYS_LENGTHS}
    _write_json(kept, folder / "tokenizer_config.json")


def _write_json(value: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
