"""jina-reranker-v2: XLM-RoBERTa under other names, read into transformers' own class; the code it brings is never run.

`jinaai/jina-reranker-v2-base-multilingual` comes with a modelling file (`XLMRobertaFlashConfig`), written for
FlashAttention. What it computes is XLM-RoBERTa: embeddings of word, position (from `pad_token_id + 1` on) and type 0,
summed and normalised; layers that normalise after each residual; exact GELU; scaled dot products; dense, tanh, linear
over the first token. Only the weights have other names, and query, key and value are one matrix:

    here (roberta.…)                          transformers (roberta.…)
    emb_ln                                    embeddings.LayerNorm
    encoder.layers.N.mixer.Wqkv               encoder.layer.N.attention.self.query, key, value (rows in this order)
    encoder.layers.N.mixer.out_proj           encoder.layer.N.attention.output.dense
    encoder.layers.N.norm1                    encoder.layer.N.attention.output.LayerNorm
    encoder.layers.N.mlp.fc1                  encoder.layer.N.intermediate.dense
    encoder.layers.N.mlp.fc2                  encoder.layer.N.output.dense
    encoder.layers.N.norm2                    encoder.layer.N.output.LayerNorm

Later versions of that code also do rotary positions and adapters (jina-embeddings-v3); a config that asks for them is
refused, and so is any weight that the table does not name.

Sources: the model's modelling and configuration files, and `convert_roberta_weights_to_flash.py` in
jinaai/xlm-roberta-flash-implementation, which maps the other way.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rankmill.errors import ModelError
from rankmill.scoring.families import classifier
from rankmill.scoring.families.architectures import family_of
from rankmill.scoring.files import Tensor
from rankmill.scoring.model_files import ModelFiles, Source
from rankmill.scoring.options import ScorerOptions

_NATIVE = "XLMRobertaForSequenceClassification"
_CODE = {
    "AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig",
    "AutoModelForSequenceClassification": f"modeling_xlm_roberta.{_NATIVE}",
}
# What decides a logit and has another default there than in transformers, so that it has to be stated.
_STATED = (
    "hidden_size",
    "intermediate_size",
    "layer_norm_eps",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "pad_token_id",
    "type_vocab_size",
    "vocab_size",
)
# The only values for which the two compute the same.
_EQUAL_FOR: Mapping[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute",),
    "lora_adaptations": (None,),
    "last_layer_subset": (None, False),
}
_LAYERS = {
    "mixer.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
    "norm2": "output.LayerNorm",
}
_FUSED, _THIRDS = "mixer.Wqkv", ("query", "key", "value")
_LAYER = re.compile(r"roberta\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_EMBEDDING_NORM, _NATIVE_NORM = "roberta.emb_ln.", "roberta.embeddings.LayerNorm."
_SAME = re.compile(
    r"roberta\.embeddings\.(word|position|token_type)_embeddings\.weight"
    r"|(roberta\.pooler\.dense|classifier\.dense|classifier\.out_proj)\.(weight|bias)"
)
_NAMED_IN_MESSAGES = 5


def is_jina(config: Mapping[str, Any]) -> bool:
    """Whether config.json asks for that modelling code with a classification head."""
    named = config.get("auto_map")
    return (
        isinstance(named, Mapping)
        and config.get("architectures") == [_NATIVE]
        # "owner/repository--module.Class" where the code lies in a repository of its own
        and all(str(named.get(auto)).rpartition("--")[2] == name for auto, name in _CODE.items())
    )


def check(model: str, config: Mapping[str, Any]) -> None:
    """Refuse what config.json alone rules out.

    Raises:
        ModelError: it asks for more than XLM-RoBERTa does, or has not exactly one label.
    """
    family_of(model, native_config(model, config))


def read(files: ModelFiles, options: ScorerOptions) -> classifier.Classifier:
    """Check the files of a jina-reranker-v2, as those of the XLM-RoBERTa that it is.

    Raises:
        ModelError: the model cannot be used; the sentence says why.
        UsageError: a limit in `options` does not fit the model.
    """
    sources = _sources(files.name, files.tensors)
    native = replace(
        files,
        config=native_config(files.name, files.config),
        tensors={name: _header(files.tensors[source.name], source) for name, source in sources.items()},
        sources=sources,
    )
    return classifier.read(native, options)


def native_config(model: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of the XLM-RoBERTa that computes the same.

    Raises:
        ModelError: there is none.
    """
    for key, values in _EQUAL_FOR.items():
        if config.get(key, values[0]) not in values:
            raise ModelError(
                f"The model {model!r} is written for Jina's own XLM-RoBERTa code with {key} = {config[key]!r}, which "
                f"transformers' XLM-RoBERTa does not compute ({key} must be {values[0]!r}), and the code that comes "
                "with a model is never run. Give jinaai/jina-reranker-v2-base-multilingual or BAAI/bge-reranker-v2-m3."
            )
    silent = [key for key in _STATED if not isinstance(config.get(key), int | float)]
    if silent:
        raise ModelError(
            f"The config.json of {model!r} does not state {', '.join(silent)}; Jina's code and transformers assume "
            "different values where it is silent. Fetch the file again."
        )
    kept = {key: value for key, value in config.items() if key != "auto_map"}
    return {**kept, "model_type": "xlm-roberta"}


def _sources(model: str, stored: Mapping[str, Tensor]) -> dict[str, Source]:
    """Name in transformers' class -> where it is in the files."""
    sources: dict[str, Source] = {}
    strange = []
    for name in stored:
        layer = _LAYER.fullmatch(name)
        if name.startswith(_EMBEDDING_NORM):
            sources[_NATIVE_NORM + name.removeprefix(_EMBEDDING_NORM)] = Source(name)
        elif layer is not None and layer[2] == _FUSED and stored[name].shape[0] % 3 == 0:
            for third, part in enumerate(_THIRDS):
                sources[f"roberta.encoder.layer.{layer[1]}.attention.self.{part}.{layer[3]}"] = Source(name, third)
        elif layer is not None and layer[2] in _LAYERS:
            sources[f"roberta.encoder.layer.{layer[1]}.{_LAYERS[layer[2]]}.{layer[3]}"] = Source(name)
        elif _SAME.fullmatch(name):
            sources[name] = Source(name)
        else:
            strange.append(name)
    if strange:
        more = f" and {len(strange) - _NAMED_IN_MESSAGES} more" if len(strange) > _NAMED_IN_MESSAGES else ""
        raise ModelError(
            f"The model {model!r} says that it is a jina-reranker-v2, but holds weights that such a model has not: "
            f"{', '.join(sorted(strange)[:_NAMED_IN_MESSAGES])}{more}. Leaving them out would change every score."
        )
    return sources


def _header(tensor: Tensor, source: Source) -> Tensor:
    if source.third is None:
        return tensor
    return Tensor(tensor.dtype, (tensor.shape[0] // 3, *tensor.shape[1:]))
