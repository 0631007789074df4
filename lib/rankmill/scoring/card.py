"""What was understood of a model, and the fingerprint that says when two scorers give the same logits."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from rankmill.scoring.files import Tensor, sha256
from rankmill.scoring.limits import Limits
from rankmill.scoring.model_files import ModelFiles
from rankmill.scoring.text_encoder import BYTES_PER_TOKEN

# where a model was made and with which release does not change what it computes
_IRRELEVANT_CONFIG = frozenset(
    {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache", "_commit_hash"}
)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model that passed every check that its files allow."""

    model: str
    """As asked for: `builtin`, hub id, folder, `python:module:Class` or URL."""
    revision: str | None
    """Commit hash of a hub id, else None."""
    folder: Path | None
    """Where its files are on this machine; None for a model without files."""
    kind: str
    """How it scores: `cross-encoder`, `language-model`, `listwise`, `late-interaction`, `bi-encoder`, `python` or
    `http`."""
    family: str
    """`model_type` of config.json."""
    architecture: str
    """The class of transformers that reads it."""
    parameters: int
    stored_dtype: str
    """Of most parameters in the file, as safetensors names it (F32, F16, BF16, I8); computed in `precision`."""
    max_length: int
    """Tokens per pair, special tokens included, as it will be used (two-sided models: per document); 0 for a model that
    gets texts."""
    max_query_tokens: int
    input_format: str
    """What the model reads, for people: `[CLS] query [SEP] document [SEP], segments 0 and 1`."""
    pooling: str
    """What the logit is made from, for people: `first token through the pooler`, `mean of all tokens`, …"""
    activation: str
    """`identity` or `sigmoid`."""
    precision: str
    fingerprint: str
    """64 hexadecimal digits over weights, tokenizer, config, pair format, truncation, precision and activation."""
    inputs: str
    """The same but for the weights: what decides the tokens, and is known at once."""
    listwise: bool = False
    """Whether the score of a document depends on the others of its query, so that they are scored together or not at
    all."""

    @property
    def token_limit(self) -> int | None:
        """`max_length`; None for a model that gets texts, and cuts them or not."""
        return self.max_length or None

    @property
    def ids_per_token(self) -> int:
        """Ids of an `EncodedPairs` that count as one token: more than 1 for a model that gets texts, as bytes."""
        return 1 if self.max_length else BYTES_PER_TOKEN


def make_card(
    files: ModelFiles,
    *,
    kind: str,
    family: str,
    architecture: str,
    limits: Limits,
    activation: str,
    precision: str,
    input_format: str,
    pooling: str,
    identity: Mapping[str, Any],
) -> ModelCard:
    """Describe a model that has files; reads the weight files once, to hash them, if its `files.weighed`.

    Args:
        files: its folder.
        kind: see `ModelCard`, as are the next seven.
        family: `model_type`.
        architecture: the class of transformers.
        limits: tokens per pair.
        activation: `identity` or `sigmoid`.
        precision: of the body.
        input_format: for people.
        pooling: for people.
        identity: JSON-able; all that decides a logit beyond files, limits, precision and activation: the pair format,
            a prompt, a version of the assembly.
    """
    # everything that decides a logit, and nothing that does not: no folder names, batch sizes, threads or devices
    decides = {
        **identity,
        "kind": kind,
        "tokenizer": digest(files.tokenizer_json),
        "config": digest({key: value for key, value in files.config.items() if key not in _IRRELEVANT_CONFIG}),
        "max_length": limits.max_length,
        "max_query_tokens": limits.max_query_tokens,
        "precision": precision,
        "activation": activation,
    }
    weights = [sha256(path) for path in files.weights] if files.weighed else None
    return ModelCard(
        model=files.location.name,
        revision=files.location.revision,
        folder=files.location.folder,
        kind=kind,
        family=family,
        architecture=architecture,
        parameters=sum(prod(tensor.shape) for tensor in files.tensors.values()),
        stored_dtype=_main_dtype(files.tensors),
        max_length=limits.max_length,
        max_query_tokens=limits.max_query_tokens,
        input_format=input_format,
        pooling=pooling,
        activation=activation,
        precision=precision,
        fingerprint=digest(decides | {"weights": weights}),
        inputs=digest(decides),
    )


def text_card(
    model: str, *, kind: str, architecture: str, identity: Mapping[str, Any], listwise: bool = False
) -> ModelCard:
    """Describe a scorer of somebody else's that gets texts: nothing is known of what it does with them.

    Args:
        model: its name, or its address.
        kind: `python` or `http`.
        architecture: the name of its class or function, where it has one.
        identity: JSON-able; all that is known to decide a score.
        listwise: whether it scores lists.
    """
    decides = {"kind": kind, **identity} | ({"listwise": True} if listwise else {})
    return ModelCard(
        model=model,
        revision=None,
        folder=None,
        kind=kind,
        family=kind,
        architecture=architecture,
        parameters=0,
        stored_dtype="",
        max_length=0,
        max_query_tokens=0,
        input_format="query and all its documents as texts" if listwise else "query and document as text",
        pooling="",
        activation="identity",
        precision="its own",
        fingerprint=digest(decides),
        inputs=digest(decides),
        listwise=listwise,
    )


def digest(value: Any) -> str:
    """sha256 of a JSON-able value, key order ignored: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _main_dtype(tensors: Mapping[str, Tensor]) -> str:
    sizes: dict[str, int] = {}
    for tensor in tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + prod(tensor.shape)
    return max(sizes, key=lambda dtype: sizes[dtype])
