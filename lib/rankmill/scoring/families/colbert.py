"""Late interaction in the form of Stanford's ColBERT: artifact.metadata, and a projection among the weights."""

import string
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
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
from rankmill.scoring.files import read_json
from rankmill.scoring.model_files import ModelFiles
from rankmill.scoring.modules import Dense
from rankmill.scoring.numbers import integer
from rankmill.scoring.options import ScorerOptions

_ARCHITECTURE = "HF_ColBERT"
_PROJECTION = "linear.weight"
_METADATA = "artifact.metadata"


def is_colbert(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a Stanford ColBERT."""
    architectures = config.get("architectures")
    return isinstance(architectures, list) and _ARCHITECTURE in architectures


def check(model: str, folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse what small files rule out.

    Raises:
        ModelError: the network cannot be run here, or artifact.metadata is missing.
    """
    if body_of(model, config).name != "bert":
        raise ModelError(
            f"The model {model!r} is a ColBERT on a network of the type {config.get('model_type')!r}; in Stanford's "
            "form, only those on BERT are known."
        )
    if not (folder / _METADATA).is_file():
        raise ModelError(
            f"The model {model!r} is a ColBERT (config.json), but its {_METADATA} is missing, which holds the lengths "
            "and the markers of queries and documents."
        )


def read(files: ModelFiles, options: ScorerOptions) -> LateInteraction:
    """Check the files of a Stanford ColBERT.

    Raises:
        ModelError: the model cannot be used; the sentence says why and what to do.
        UsageError: a limit in `options` does not fit the model.
    """
    model = files.name
    metadata = without_nulls(read_json(model, files.location.folder / _METADATA))
    similarity = metadata.get("similarity", "cosine")
    if similarity != "cosine":
        raise ModelError(f"The model {model!r} compares tokens by {similarity!r} ({_METADATA}); known is 'cosine'.")
    linear = files.tensors.get(_PROJECTION)
    if linear is None or len(files.weights) != 1:
        raise ModelError(
            f"The model {model!r} is a ColBERT (config.json), but {_PROJECTION}, its projection, is not in its "
            "model.safetensors."
        )
    body = body_of(model, files.config)
    # what Stanford's ColBERTConfig has for keys that are not there
    statement = Statement(
        query_marker=str(metadata.get("query_token_id") or "[unused0]"),
        document_marker=str(metadata.get("doc_token_id") or "[unused1]"),
        query_length=integer(metadata, "query_maxlen", 32, _METADATA),
        document_length=integer(metadata, "doc_maxlen", 220, _METADATA),
        expands=True,
        attends=bool(metadata.get("attend_to_mask_tokens", False)),
        skiplist=tuple(string.punctuation) if metadata.get("mask_punctuation", True) else (),
    )
    layer = Dense(files.weights[0], {_PROJECTION: linear}, "identity", residual=False)
    network = replace(files, tensors=weights_without(files, body, _PROJECTION))
    return assemble(network, body, (layer,), statement, options)
