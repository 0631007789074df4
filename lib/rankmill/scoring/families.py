"""The architectures that can be scored: encoders with a classification head of one label, read from config.json.

An allow-list, not a guess from a name: a model whose pair format, head or positions are not known here would give
numbers, and they would be wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rankmill.errors import ModelError


@dataclass(frozen=True, slots=True)
class Family:
    """What differs between the encoder families, beyond what their own config.json says."""

    name: str
    """`model_type` of config.json."""
    architecture: str
    """The class of transformers that reads it."""
    last_layer: str
    """The head's last weight, shape (labels, hidden size): its absence means a body without a head."""
    positions_after_padding: bool = False
    """Positions start at `pad_token_id + 1`, so that many position embeddings are never used (RoBERTa)."""
    token_types: bool = False
    """The model takes token_type_ids, and its tokenizers hand them out."""
    unused: tuple[str, ...] = ()
    """Weights that some checkpoints hold and that cannot influence the logit."""


# `position_ids` was saved as a buffer by transformers < 4.31: a constant 0, 1, 2, … that the code now makes itself.
# RoBERTa's classification head reads the first token's hidden state through layers of its own; checkpoints written
# before transformers 4.0 carry a pooler as well, which the forward pass never reads.
_ROBERTA_UNUSED = (
    "roberta.embeddings.position_ids",
    "roberta.pooler.dense.weight",
    "roberta.pooler.dense.bias",
)

FAMILIES = (
    Family(
        "bert",
        "BertForSequenceClassification",
        "classifier.weight",
        token_types=True,
        unused=("bert.embeddings.position_ids",),
    ),
    Family(
        "electra",
        "ElectraForSequenceClassification",
        "classifier.out_proj.weight",
        token_types=True,
        unused=("electra.embeddings.position_ids",),
    ),
    Family(
        "roberta",
        "RobertaForSequenceClassification",
        "classifier.out_proj.weight",
        positions_after_padding=True,
        unused=_ROBERTA_UNUSED,
    ),
    Family(
        "xlm-roberta",
        "XLMRobertaForSequenceClassification",
        "classifier.out_proj.weight",
        positions_after_padding=True,
        unused=_ROBERTA_UNUSED,
    ),
    Family("modernbert", "ModernBertForSequenceClassification", "classifier.weight"),
)
_SUPPORTED = "BERT, ELECTRA, RoBERTa, XLM-RoBERTa and ModernBERT with a classification head of one label"


def family_of(model: str, config: Mapping[str, Any]) -> Family:
    """Choose the family from config.json.

    Args:
        model: the model's name, for messages.
        config: config.json.

    Raises:
        ModelError: the architecture is not on the list, needs remote code, or has more than one label; the sentence
            says what the model is instead.
    """
    architectures = config.get("architectures")
    architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    family = next((f for f in FAMILIES if f.architecture == architecture), None)
    if config.get("auto_map"):
        raise ModelError(
            f"The model {model!r} brings its own Python code (auto_map in config.json), which is never run. "
            f"Usable are {_SUPPORTED}, in their transformers form."
        )
    if family is None:
        raise ModelError(f"The model {model!r} {_what_it_is(architecture)} Usable are {_SUPPORTED}.")
    if config.get("quantization_config"):
        raise ModelError(
            f"The weights of the model {model!r} are quantised (quantization_config in config.json), which needs the "
            "library that wrote them. Give the model as float32, bfloat16 or float16."
        )
    if config.get("model_type") != family.name:
        raise ModelError(
            f"The config.json of {model!r} contradicts itself: its architecture is {architecture}, its model_type "
            f"{config.get('model_type')!r} where {family.name!r} belongs."
        )
    labels = _labels(config)
    if labels != 1:
        raise ModelError(
            f"The model {model!r} has {labels} labels (num_labels, or id2label, in config.json); a reranker has "
            "exactly 1, its relevance. A classifier with more, such as one for entailment, does not say which of them "
            "to rank by."
        )
    return family


def position_limit(family: Family, config: Mapping[str, Any]) -> int:
    """Most tokens that the model's position embeddings can number.

    Raises:
        ModelError: config.json says something that is not a number.
    """
    positions = integer(config, "max_position_embeddings", 512)
    if family.positions_after_padding:
        positions -= integer(config, "pad_token_id", 1) + 1
    return positions


def integer(config: Mapping[str, Any], key: str, default: int) -> int:
    """A number of config.json, or `default` where it states none.

    Raises:
        ModelError: it is something else.
    """
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ModelError(f"config.json says {key} = {value!r}, where a whole number belongs.")
    return value


def _labels(config: Mapping[str, Any]) -> int:
    # transformers derives num_labels from id2label, and a config that states neither has two labels
    id2label = config.get("id2label")
    if isinstance(id2label, Mapping):
        return len(id2label)
    return integer(config, "num_labels", 2)


def _what_it_is(architecture: str) -> str:
    if not architecture:
        return "does not say what it is: its config.json has no 'architectures'."
    if architecture.endswith(("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")):
        return f"is a language model that writes text ({architecture}), not an encoder with a classification head."
    if architecture.endswith("ForSequenceClassification"):
        return f"has the architecture {architecture}, which this version cannot run."
    if architecture.endswith("Model"):
        return (
            f"is an encoder without a classification head ({architecture}), such as a bi-encoder for embeddings: it "
            "embeds one text at a time and cannot score a pair."
        )
    return f"has the architecture {architecture}, which has no head that scores a pair."
