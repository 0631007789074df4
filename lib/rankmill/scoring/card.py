"""What was understood of a model, and the fingerprint that says when two scorers give the same logits."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from rankmill.scoring.files import Tensor, sha256
from rankmill.scoring.model_files import ModelFiles
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.template import PairTemplate
from rankmill.scoring.tokens import ASSEMBLY_VERSION

# where a model was made and with which release does not change what it computes
_IRRELEVANT_CONFIG = frozenset(
    {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "_commit_hash"}
)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model that passed every check that its files allow."""

    model: str
    """As asked for: `builtin`, hub id or folder."""
    revision: str | None
    """Commit hash of a hub id, else None."""
    folder: Path
    """Where its files are on this machine."""
    family: str
    architecture: str
    parameters: int
    stored_dtype: str
    """Of most parameters in the file, as safetensors names it (F32, F16, BF16, I8); computed in `precision`."""
    max_length: int
    """Tokens per pair, special tokens included, as it will be used."""
    max_query_tokens: int
    template: PairTemplate
    activation: str
    """`identity` or `sigmoid`."""
    precision: str
    fingerprint: str
    """64 hexadecimal digits over weights, tokenizer, config, pair format, truncation, precision and activation."""


def make_card(files: ModelFiles, options: ScorerOptions) -> ModelCard:
    """Describe a model; reads the weight files once, to hash them."""
    return ModelCard(
        model=files.location.name,
        revision=files.location.revision,
        folder=files.location.folder,
        family=files.family.name,
        architecture=files.family.architecture,
        parameters=sum(prod(tensor.shape) for tensor in files.tensors.values()),
        stored_dtype=_main_dtype(files.tensors),
        max_length=files.limits.max_length,
        max_query_tokens=files.limits.max_query_tokens,
        template=files.template,
        activation=files.activation,
        precision=options.precision,
        fingerprint=_fingerprint(files, options.precision),
    )


def _fingerprint(files: ModelFiles, precision: str) -> str:
    """Everything that decides a logit, and nothing that does not: no folder names, batch sizes, threads or devices."""
    return _digest(
        {
            "assembly": ASSEMBLY_VERSION,
            "weights": [sha256(path) for path in files.weights],
            "tokenizer": _digest(files.tokenizer_json),
            "config": _digest({key: value for key, value in files.config.items() if key not in _IRRELEVANT_CONFIG}),
            "template": [*files.template.parts, files.template.segments],
            "max_length": files.limits.max_length,
            "max_query_tokens": files.limits.max_query_tokens,
            "precision": precision,
            "activation": files.activation,
        }
    )


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _main_dtype(tensors: Mapping[str, Tensor]) -> str:
    sizes: dict[str, int] = {}
    for tensor in tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + prod(tensor.shape)
    return max(sizes, key=lambda dtype: sizes[dtype])
