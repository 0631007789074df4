"""The encoders whose classification head is known here, by the architecture in config.json.

An allow-list, not a guess from a name: a model whose pair format, head or positions are not known here would give
numbers, and they would be wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rankmill.errors import ModelError
from rankmill.scoring.checks import refuse_quantised
from rankmill.scoring.files import Tensor
from rankmill.scoring.numbers import integer


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
    first_token: bool = False
    """Layers built like BERT's, and a head that reads the first token's vector alone: see `engines.first_token`."""
    attention: str = "sdpa"
    """What transformers offers for it: `sdpa`, or `eager` where the class knows nothing faster (DeBERTa)."""


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
        first_token=True,
        unused=("bert.embeddings.position_ids",),
    ),
    Family(
        "electra",
        "ElectraForSequenceClassification",
        "classifier.out_proj.weight",
        token_types=True,
        first_token=True,
        unused=("electra.embeddings.position_ids",),
    ),
    Family(
        "roberta",
        "RobertaForSequenceClassification",
        "classifier.out_proj.weight",
        positions_after_padding=True,
        first_token=True,
        unused=_ROBERTA_UNUSED,
    ),
    Family(
        "xlm-roberta",
        "XLMRobertaForSequenceClassification",
        "classifier.out_proj.weight",
        positions_after_padding=True,
        first_token=True,
        unused=_ROBERTA_UNUSED,
    ),
    Family("modernbert", "ModernBertForSequenceClassification", "classifier.weight"),
    # Relative positions, so that a pair could be of any length; `max_position_embeddings` is what it was trained on.
    Family(
        "deberta-v2",
        "DebertaV2ForSequenceClassification",
        "classifier.weight",
        token_types=True,
        unused=("deberta.embeddings.position_ids",),
        attention="eager",
    ),
)
_SUPPORTED = (
    "BERT, ELECTRA, RoBERTa, XLM-RoBERTa, ModernBERT and DeBERTa-v2 with a classification head of one label, and the "
    "language models Qwen3-Reranker, bge-reranker-v2-gemma and mxbai-rerank-v2"
)


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
            f"The model {model!r} brings its own Python code (auto_map in config.json), which is not run. "
            f"Usable are {_SUPPORTED}, in their transformers form; or, where you have read that code, a folder that "
            "holds it, with --trust-remote-code."
        )
    if family is None:
        raise ModelError(f"The model {model!r} {_what_it_is(architecture)} Usable are {_SUPPORTED}.")
    refuse_quantised(model, config)
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


def check_head(model: str, family: Family, tensors: Mapping[str, Tensor]) -> None:
    """Refuse a body without a head: transformers would make up a random one."""
    head = tensors.get(family.last_layer)
    if head is None:
        raise ModelError(
            f"The weights of the model {model!r} hold no classification head ({family.last_layer} is missing, although "
            f"config.json says {family.architecture}): a random one would give random scores."
        )
    if head.shape[:1] != (1,):
        raise ModelError(
            f"The classification head of the model {model!r} has {head.shape[0] if head.shape else 0} outputs "
            f"({family.last_layer}); a reranker has exactly 1."
        )


def position_limit(family: Family, config: Mapping[str, Any]) -> int:
    """Most tokens that the model's position embeddings can number.

    Raises:
        ModelError: config.json says something that is not a number.
    """
    positions = integer(config, "max_position_embeddings", 512)
    if family.positions_after_padding:
        positions -= integer(config, "pad_token_id", 1) + 1
    return positions


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
