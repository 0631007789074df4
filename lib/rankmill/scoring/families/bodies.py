"""Networks without a head: what embedding models, and models that compare token by token, are built on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rankmill.errors import ModelError
from rankmill.scoring.checks import refuse_quantised
from rankmill.scoring.numbers import integer


@dataclass(frozen=True, slots=True)
class Body:
    """What differs between them, beyond what their own config.json says."""

    name: str
    """`model_type` of config.json."""
    architecture: str
    """The class of transformers that reads it."""
    prefix: str
    """Before the names of its weights, in files that were saved with a head."""
    pooler: bool = False
    """The class can have a pooler, which nothing here reads."""
    positions_after_padding: bool = False
    """Positions start at `pad_token_id + 1`, so that many position embeddings are never used (RoBERTa)."""
    attention: str = "sdpa"
    """What transformers offers for it."""
    token_types: bool = False
    """It takes token_type_ids, and its tokenizers hand them out."""

    @property
    def unused(self) -> tuple[str, ...]:
        """Weights that files may hold and that cannot influence a hidden state: the pooler, and constants."""
        names = ["embeddings.position_ids"]
        if self.pooler:
            names += ["pooler.dense.weight", "pooler.dense.bias"]
        return tuple(name for bare in names for name in (bare, f"{self.prefix}.{bare}"))

    @property
    def arguments(self) -> dict[str, Any]:
        """What the class is built with, beyond its config."""
        return {"add_pooling_layer": False} if self.pooler else {}


BODIES = (
    Body("bert", "BertModel", "bert", pooler=True, token_types=True),
    Body("distilbert", "DistilBertModel", "distilbert"),
    Body("electra", "ElectraModel", "electra", token_types=True),
    Body("modernbert", "ModernBertModel", "model"),
    Body("mpnet", "MPNetModel", "mpnet", pooler=True, positions_after_padding=True, attention="eager"),
    Body("qwen3", "Qwen3Model", "model"),
    Body("roberta", "RobertaModel", "roberta", pooler=True, positions_after_padding=True),
    Body("xlm-roberta", "XLMRobertaModel", "roberta", pooler=True, positions_after_padding=True),
)


def body_of(model: str, config: Mapping[str, Any]) -> Body:
    """Choose the network by config.json's `model_type`, as sentence-transformers does.

    Raises:
        ModelError: it is not on the list, brings its own code, or is quantised.
    """
    if config.get("auto_map"):
        raise ModelError(
            f"The model {model!r} brings its own Python code (auto_map in config.json), which is never run."
        )
    refuse_quantised(model, config)
    name = config.get("model_type")
    body = next((body for body in BODIES if body.name == name), None)
    if body is None:
        raise ModelError(
            f"The model {model!r} embeds texts with a network of the type {name!r} (model_type in config.json), which "
            f"this version cannot run. Usable are {', '.join(body.name for body in BODIES)}."
        )
    return body


def position_limit(body: Body, config: Mapping[str, Any]) -> int:
    """Most tokens that the network's positions can number.

    Raises:
        ModelError: config.json says something that is not a number.
    """
    positions = integer(config, "max_position_embeddings", 512)
    if body.positions_after_padding:
        positions -= integer(config, "pad_token_id", 1) + 1
    return positions
