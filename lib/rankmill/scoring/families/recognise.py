"""Which kind of model a folder holds, from its small files alone: called before a hub model's weights are fetched."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rankmill.errors import ModelError
from rankmill.scoring.checks import refuse_modules
from rankmill.scoring.families import (
    bi_encoder,
    causal,
    classifier,
    colbert,
    jina,
    jina_lists,
    modular,
    own_code,
    pylate,
)
from rankmill.scoring.families.architectures import family_of
from rankmill.scoring.files import read_json, read_json_if_any
from rankmill.scoring.model import Model
from rankmill.scoring.model_files import ModelFiles
from rankmill.scoring.modules import read_modules
from rankmill.scoring.options import ScorerOptions

Reader = Callable[[ModelFiles, ScorerOptions], Model]


def recognise(model: str, folder: Path, options: ScorerOptions) -> Reader:
    """Choose what reads a model.

    Args:
        model: its name, for messages.
        folder: with config.json and the other small files; the weights need not be there.
        options: what was asked for.

    Raises:
        ModelError: nothing here can run it; the sentence says what it is.
        UsageError: an option does not fit the kind of model.
    """
    if not any(folder.iterdir()):
        raise ModelError(
            f"The model folder {model!r} is empty; it must hold config.json, model.safetensors and tokenizer.json."
        )
    config = read_json(model, folder / "config.json")
    # what modules follow the network comes first: many kinds are built on networks that others are built on as well
    reader = _by_modules(model, folder, config)
    if reader is not None:
        causal.refuse_prompt_options(model, options)
        return reader
    if jina_lists.is_jina_lists(config):
        jina_lists.check(model, config, options)
        return jina_lists.read
    if causal.is_language_model(model, folder, config):
        causal.check(model, folder, config, options)
        return causal.read
    causal.refuse_prompt_options(model, options)
    refuse_modules(model, folder)
    if jina.is_jina(config):
        jina.check(model, config)
        return jina.read
    if options.trust_remote_code and own_code.brings_code(config):
        own_code.check(model, folder, config)
        return own_code.read
    family_of(model, config)
    return classifier.read


def _by_modules(model: str, folder: Path, config: Mapping[str, Any]) -> Reader | None:
    """What reads a model whose head is modules, or that embeds query and document apart; None for any other model."""
    if colbert.is_colbert(config):
        colbert.check(model, folder, config)
        return colbert.read
    modules = read_modules(model, folder)
    sentence_transformers = read_json_if_any(model, folder / "config_sentence_transformers.json")
    if modular.is_modular(modules, sentence_transformers):
        modular.check(model, config, modules)
        return modular.read
    if pylate.is_pylate(modules, sentence_transformers):
        pylate.check(model, config, modules)
        return pylate.read
    if bi_encoder.is_bi_encoder(modules):
        bi_encoder.check(model, config, modules)
        return bi_encoder.read
    return None
