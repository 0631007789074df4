"""What was understood of a model, from its files alone: no torch, no weights in memory."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankmill.errors import ModelError, UsageError
from rankmill.scoring.activation import activation_of
from rankmill.scoring.families import Family, family_of, position_limit
from rankmill.scoring.files import Tensor, read_headers, read_json, read_json_if_any, sha256, weight_files
from rankmill.scoring.locate import Location
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.template import PairTemplate, read_template
from rankmill.scoring.tokenizer_files import parse_tokenizer, with_config
from rankmill.scoring.tokens import ASSEMBLY_VERSION, Limits

# transformers writes 1e30 for "no limit"
_NO_LIMIT = 1_000_000
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


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The parsed files that a scorer is made of."""

    family: Family
    config: Mapping[str, Any]
    tokenizer_json: Mapping[str, Any]
    """With the settings of tokenizer_config.json applied."""
    weights: tuple[Path, ...]


def read_model(location: Location, options: ScorerOptions) -> tuple[ModelCard, ModelFiles]:
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
    sentence_transformers = read_json_if_any(model, folder / "config_sentence_transformers.json")
    _refuse_modules(model, folder)
    family = family_of(model, config)
    _refuse_prompt(model, sentence_transformers)
    weights = weight_files(model, folder)
    tensors = read_headers(model, weights)
    _check_head(model, family, tensors)
    tokenizer_config = read_json_if_any(model, folder / "tokenizer_config.json")
    tokenizer_json = with_config(read_json(model, folder / "tokenizer.json"), tokenizer_config)
    template = _template(model, family, config, tokenizer_json, tokenizer_config)
    limits = _limits(
        model,
        options,
        _own_limit(model, folder, family, config, tokenizer_config),
        position_limit(family, config),
        template,
    )
    activation = activation_of(model, config, sentence_transformers)
    identity = {
        "assembly": ASSEMBLY_VERSION,
        "weights": [sha256(path) for path in weights],
        "tokenizer": _digest(tokenizer_json),
        "config": _digest({key: value for key, value in config.items() if key not in _IRRELEVANT_CONFIG}),
        "template": [*template.parts, template.segments],
        "max_length": limits.max_length,
        "max_query_tokens": limits.max_query_tokens,
        "precision": options.precision,
        "activation": activation,
    }
    counted = {name: tensor for name, tensor in tensors.items() if name not in family.unused}
    card = ModelCard(
        model=model,
        revision=location.revision,
        folder=folder,
        family=family.name,
        architecture=family.architecture,
        parameters=sum(_size(tensor) for tensor in counted.values()),
        stored_dtype=_main_dtype(counted),
        max_length=limits.max_length,
        max_query_tokens=limits.max_query_tokens,
        template=template,
        activation=activation,
        precision=options.precision,
        fingerprint=_digest(identity),
    )
    return card, ModelFiles(family, config, tokenizer_json, weights)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _size(tensor: Tensor) -> int:
    size = 1
    for dimension in tensor.shape:
        size *= dimension
    return size


def _main_dtype(tensors: Mapping[str, Tensor]) -> str:
    sizes: dict[str, int] = {}
    for tensor in tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + _size(tensor)
    return max(sizes, key=lambda dtype: sizes[dtype])


def _refuse_modules(model: str, folder: Path) -> None:
    """Refuse what sentence-transformers adds around the network: a pooling makes a bi-encoder, a dense layer a head."""
    path = folder / "modules.json"
    if not path.is_file():
        return
    try:
        modules = json.loads(path.read_bytes())
        types = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"The modules.json of the model {model!r} cannot be read: {error!r}.") from error
    if types == ["Transformer"]:
        return
    if "Pooling" in types:
        raise ModelError(
            f"The model {model!r} is a bi-encoder (modules.json: {', '.join(types)}): it embeds one text at a time and "
            "cannot score a pair. Give a cross-encoder, such as cross-encoder/ms-marco-MiniLM-L6-v2 or builtin."
        )
    raise ModelError(
        f"The model {model!r} adds modules of sentence-transformers to its network ({', '.join(types)} in "
        "modules.json), which this version cannot run; leaving them out would change every score."
    )


def _refuse_prompt(model: str, sentence_transformers: Mapping[str, Any]) -> None:
    name = sentence_transformers.get("default_prompt_name")
    prompts = sentence_transformers.get("prompts") or {}
    if name is not None and prompts.get(name):
        raise ModelError(
            f"The model {model!r} puts the prompt {prompts[name]!r} before its input "
            "(config_sentence_transformers.json), which this version cannot do; without it, every score would differ."
        )


def _check_head(model: str, family: Family, tensors: Mapping[str, Tensor]) -> None:
    head = tensors.get(family.last_layer)
    if head is None:
        raise ModelError(
            f"The weights of the model {model!r} hold no classification head ({family.last_layer} is missing, although "
            f"config.json says {family.architecture}): a random one would give random scores."
        )
    if head.shape[0] != 1:
        raise ModelError(
            f"The classification head of the model {model!r} has {head.shape[0]} outputs ({family.last_layer}); a "
            "reranker has exactly 1."
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
    if template.segments and not (handed_out and int(config.get("type_vocab_size", 2)) > 1 and family.token_types):
        # ModernBERT's post-processor numbers segments that the model has no embeddings for
        return PairTemplate(template.prefix, template.middle, template.suffix, segments=False)
    return template


def _own_limit(
    model: str, folder: Path, family: Family, config: Mapping[str, Any], tokenizer_config: Mapping[str, Any]
) -> int:
    """The length that the model's files ask for: the smallest of what they state."""
    limits = [position_limit(family, config)]
    stated = (
        tokenizer_config.get("model_max_length"),
        read_json_if_any(model, folder / "sentence_bert_config.json").get("max_seq_length"),
    )
    limits += [int(limit) for limit in stated if isinstance(limit, int | float) and 0 < limit < _NO_LIMIT]
    return min(limits)


def _limits(model: str, options: ScorerOptions, own: int, positions: int, template: PairTemplate) -> Limits:
    if options.max_length is not None and options.max_length > positions:
        raise UsageError(
            f"--max-length {options.max_length} is more than the {positions} tokens that the model {model!r} has "
            f"positions for; leave it out for the model's own limit of {own}."
        )
    max_length = own if options.max_length is None else options.max_length
    room = max_length - template.special_tokens
    if room < 2:
        raise UsageError(
            f"--max-length {max_length} leaves no room: the pair format of the model {model!r} takes "
            f"{template.special_tokens} tokens, query and document at least one each. Give at least "
            f"{template.special_tokens + 2}."
        )
    if options.max_query_tokens is not None and options.max_query_tokens >= room:
        raise UsageError(
            f"--max-query-tokens {options.max_query_tokens} leaves nothing for the document: of {max_length} tokens, "
            f"{template.special_tokens} are special tokens. Give at most {room - 1}."
        )
    return Limits(max_length, options.max_query_tokens or room // 2)
