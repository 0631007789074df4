"""Late interaction in PyLate's form: modules.json lists a network and dense layers, as sentence-transformers does."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rankmill.errors import ModelError
from rankmill.scoring.families.bodies import body_of
from rankmill.scoring.families.late_interaction import (
    LateInteraction,
    Statement,
    assemble,
    weights_without,
    without_nulls,
)
from rankmill.scoring.model_files import ModelFiles
from rankmill.scoring.modules import Module, check_modules, prompts_of, read_dense, read_modules
from rankmill.scoring.numbers import integer
from rankmill.scoring.options import ScorerOptions

_CONFIG = "config_sentence_transformers.json"


def is_pylate(modules: Sequence[Module], sentence_transformers: Mapping[str, Any]) -> bool:
    """Whether a folder's files are those of PyLate: one of its modules, or its name for the kind of model."""
    return any(module.package == "pylate" for module in modules) or (
        len(modules) > 1 and sentence_transformers.get("model_type") == "ColBERT"
    )


def check(model: str, config: Mapping[str, Any], modules: Sequence[Module]) -> None:
    """Refuse what small files rule out.

    Raises:
        ModelError: the network or a module cannot be run here.
    """
    check_modules(model, modules, ("Dense",))
    if len(modules) < 2:
        raise ModelError(f"The model {model!r} has no projection: its modules.json lists no Dense layer.")
    body_of(model, config)


def read(files: ModelFiles, options: ScorerOptions) -> LateInteraction:
    """Check the files of a PyLate model.

    Raises:
        ModelError: the model cannot be used; the sentence says why and what to do.
        UsageError: a limit in `options` does not fit the model.
    """
    model, stated, folder = files.name, without_nulls(files.sentence_transformers), files.location.folder
    similarity = str(stated.get("similarity_fn_name") or "MaxSim")
    if similarity.lower() != "maxsim":
        raise ModelError(
            f"The model {model!r} compares by {similarity!r} (similarity_fn_name in {_CONFIG}); known is 'MaxSim'."
        )
    body = body_of(model, files.config)
    words = stated.get("skiplist_words")
    statement = Statement(
        query_marker=str(stated.get("query_prefix") or ""),
        document_marker=str(stated.get("document_prefix") or ""),
        query_length=integer(stated, "query_length", 32, _CONFIG),
        document_length=integer(stated, "document_length", 180, _CONFIG),
        expands=stated.get("do_query_expansion") is not False,
        attends=bool(stated.get("attend_to_expansion_tokens")),
        skiplist=tuple(string.punctuation) if words is None else tuple(str(word) for word in words),
        prompts=prompts_of(model, stated),
    )
    modules = read_modules(model, folder)[1:]
    layers = tuple(read_dense(model, folder, module, "identity") for module in modules)
    return assemble(replace(files, tensors=weights_without(files, body)), body, layers, statement, options)
