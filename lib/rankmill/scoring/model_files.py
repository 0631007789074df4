"""Reading a model's folder, every check included, without torch and without its weights in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankmill.errors import ModelError
from rankmill.scoring.activation import activation_of
from rankmill.scoring.checks import check_head, check_vocabulary, refuse_input_changes, refuse_modules
from rankmill.scoring.families import Family, family_of, integer
from rankmill.scoring.files import Tensor, read_headers, read_json, read_json_if_any, weight_files
from rankmill.scoring.limits import Limits, choose_limits
from rankmill.scoring.locate import Location
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.template import PairTemplate, read_template
from rankmill.scoring.tokenizer_files import parse_tokenizer, with_config


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What a scorer is made of."""

    location: Location
    family: Family
    config: Mapping[str, Any]
    """config.json."""
    tokenizer_json: Mapping[str, Any]
    """With the settings of tokenizer_config.json applied, without truncation and padding."""
    template: PairTemplate
    limits: Limits
    activation: str
    weights: tuple[Path, ...]
    tensors: Mapping[str, Tensor]
    """What the weight files say they hold."""


def read_model(location: Location, options: ScorerOptions) -> ModelFiles:
    """Read and check a model's files.

    Raises:
        ModelError: the model cannot be used; the sentence says why and what to do.
        UsageError: a limit in `options` does not fit the model.
    """
    model, folder = location.name, location.folder
    if not any(folder.iterdir()):
        raise ModelError(
            f"The model folder {model!r} is empty; it must hold config.json, model.safetensors and tokenizer.json."
        )
    config = read_json(model, folder / "config.json")
    refuse_modules(model, folder)
    family = family_of(model, config)
    weights = weight_files(model, folder)
    tensors = read_headers(model, weights)
    check_head(model, family, tensors)
    tokenizer_config = read_json_if_any(model, folder / "tokenizer_config.json")
    tokenizer_json = with_config(model, read_json(model, folder / "tokenizer.json"), tokenizer_config)
    sentence_transformers = read_json_if_any(model, folder / "config_sentence_transformers.json")
    sentence_bert = read_json_if_any(model, folder / "sentence_bert_config.json")
    refuse_input_changes(model, sentence_transformers, sentence_bert, tokenizer_json)
    template = _template(model, family, config, tokenizer_json, tokenizer_config)
    check_vocabulary(model, config, tokenizer_json, template)
    stated = [tokenizer_config.get("model_max_length"), sentence_bert.get("max_seq_length")]
    return ModelFiles(
        location=location,
        family=family,
        config=config,
        tokenizer_json=tokenizer_json,
        template=template,
        limits=choose_limits(model, options, family=family, config=config, stated=stated, template=template),
        activation=activation_of(model, config, sentence_transformers),
        weights=weights,
        tensors={name: tensor for name, tensor in tensors.items() if name not in family.unused},
    )


def _template(
    model: str,
    family: Family,
    config: Mapping[str, Any],
    tokenizer_json: Mapping[str, Any],
    tokenizer_config: Mapping[str, Any],
) -> PairTemplate:
    template = read_template(model, parse_tokenizer(model, tokenizer_json))
    names = tokenizer_config.get("model_input_names")
    handed_out = "token_type_ids" in names if isinstance(names, list) else family.token_types
    if template.segments and not (handed_out and family.token_types and integer(config, "type_vocab_size", 2) > 1):
        # ModernBERT's post-processor numbers segments that the model has no embeddings for
        return PairTemplate(template.prefix, template.middle, template.suffix, segments=False)
    return template
