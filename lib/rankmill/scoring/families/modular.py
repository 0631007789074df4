"""Cross-encoders whose head is modules of sentence-transformers, such as cross-encoder/ettin-reranker-*.

The folder looks like that of a bi-encoder (a Transformer, a Pooling, layers), and is none: the network reads query and
document together, and the last layer gives one number. `model_type` in config_sentence_transformers.json says which.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rankmill.errors import ModelError
from rankmill.scoring.activation import activation_of
from rankmill.scoring.card import ModelCard, make_card
from rankmill.scoring.checks import check_vocabulary, refuse_prompt, refuse_tokenizer_code
from rankmill.scoring.families.bi_encoder import POOLINGS, read_poolings, with_layers
from rankmill.scoring.families.bodies import Body, body_of, position_limit
from rankmill.scoring.families.classifier import describe_pair, pair_template
from rankmill.scoring.files import read_json
from rankmill.scoring.limits import Limits, choose_limits
from rankmill.scoring.model_files import ModelFiles
from rankmill.scoring.modules import (
    Dense,
    Module,
    Norm,
    check_modules,
    check_widths,
    pools_once,
    read_dense,
    read_modules,
    read_norm,
    refuse_detours,
)
from rankmill.scoring.numbers import integer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.scorer import Scorer
from rankmill.scoring.template import PairTemplate
from rankmill.scoring.tokens import ASSEMBLY_VERSION, PairEncoder

_KNOWN_MODULES = ("Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")
_CROSS_ENCODER = "CrossEncoder"


@dataclass(frozen=True, slots=True)
class Modular:
    """A cross-encoder in modules whose folder passed every check."""

    files: ModelFiles
    body: Body
    poolings: tuple[str, ...]
    """Keys of `POOLINGS`; the vectors are joined."""
    layers: tuple[Dense | Norm | None, ...]
    """What comes after, in order, the last giving one number; None brings a vector to unit length."""
    template: PairTemplate
    limits: Limits
    activation: str

    @property
    def weighted(self) -> list[Dense | Norm]:
        """The layers that have weights."""
        return [layer for layer in self.layers if layer is not None]

    def card(self, precision: str) -> ModelCard:
        """Describe it as it would be computed in `precision`."""
        identity = ["normalize" if layer is None else layer.identity for layer in self.layers]
        return make_card(
            with_layers(self.files, self.weighted),
            kind="cross-encoder",
            family=self.body.name,
            architecture=self.body.architecture,
            limits=self.limits,
            activation=self.activation,
            precision=precision,
            input_format=describe_pair(self.files, self.template),
            pooling=", ".join([*(POOLINGS[name] for name in self.poolings), *map(_describe, self.layers)]),
            identity={
                "assembly": ASSEMBLY_VERSION,
                "template": [*self.template.parts, self.template.segments],
                "poolings": list(self.poolings),
                "layers": identity,
            }
            | self.limits.identity,
        )

    def encoder(self) -> PairEncoder:
        """Load what tokenises."""
        return PairEncoder(self.files.tokenizer.text(), self.template, self.limits)

    def load(self, options: ScorerOptions) -> Scorer:
        """Load the weights."""
        from rankmill.scoring.engines.torch_modular import load_modular  # noqa: PLC0415 - torch takes seconds
        from rankmill.scoring.pair_scorer import PairScorer  # noqa: PLC0415

        return PairScorer(self.card(options.precision), self.encoder(), load_modular(self, options), options)


def is_modular(modules: Sequence[Module], sentence_transformers: Mapping[str, Any]) -> bool:
    """Whether a folder's files are those of a cross-encoder that pools hidden states itself."""
    pools = any(module.kind == "Pooling" for module in modules)
    return pools and sentence_transformers.get("model_type") == _CROSS_ENCODER


def check(model: str, config: Mapping[str, Any], modules: Sequence[Module]) -> None:
    """Refuse what small files rule out.

    Raises:
        ModelError: the network or a module cannot be run here, or the last one gives no score.
    """
    check_modules(model, modules, _KNOWN_MODULES)
    kinds = [module.kind for module in modules]
    if not pools_once(modules) or kinds[-1] != "Dense":
        raise ModelError(
            f"The cross-encoder {model!r} has the modules {', '.join(kinds)} (modules.json); known is a Transformer "
            "with one Pooling right after it and a Dense at the end, which gives the score."
        )
    body_of(model, config)


def read(files: ModelFiles, options: ScorerOptions) -> Modular:
    """Check a modular cross-encoder's files.

    Raises:
        ModelError: the model cannot be used; the sentence says why and what to do.
        UsageError: a limit in `options` does not fit the model.
    """
    model, config, folder = files.name, files.config, files.location.folder
    body = body_of(model, config)
    refuse_prompt(model, files.sentence_transformers)
    refuse_tokenizer_code(model, files.tokenizer_config)
    modules = read_modules(model, folder)
    poolings = read_poolings(model, read_json(model, folder / modules[1].path / "config.json"))
    layers = _layers(files, modules[2:])
    width = check_widths(
        model,
        integer(config, "hidden_size" if "hidden_size" in config else "dim", 0) * len(poolings),  # DistilBERT's name
        [layer for layer in layers if layer is not None],
    )
    if width != 1:
        raise ModelError(
            f"The last layer of the cross-encoder {model!r} ({modules[-1].path}) gives {width} numbers; a reranker's "
            "gives exactly 1."
        )
    template = pair_template(files, token_types=body.token_types)
    check_vocabulary(model, config, files.tokenizer_json, [i for part in template.parts for i in part])
    limits = choose_limits(
        model,
        options,
        positions=position_limit(body, config),
        stated=files.stated_lengths,
        special_tokens=template.special_tokens,
        chunks=True,
    )
    return Modular(
        files=replace(files, tensors={n: tensor for n, tensor in files.tensors.items() if n not in body.unused}),
        body=body,
        poolings=poolings,
        layers=layers,
        template=template,
        limits=limits,
        activation=activation_of(model, config, files.sentence_transformers),
    )


def _layers(files: ModelFiles, modules: Sequence[Module]) -> tuple[Dense | Norm | None, ...]:
    model, folder = files.name, files.location.folder
    found: list[Dense | Norm | None] = []
    for module in modules:
        match module.kind:
            case "Dense":
                refuse_detours(model, folder, module, "scores" if module is modules[-1] else "sentence_embedding")
                found.append(read_dense(model, folder, module, "tanh"))
            case "LayerNorm":
                found.append(read_norm(model, folder, module))
            case "Normalize":
                found.append(None)
            # a Dropout does nothing when a model is used
    return tuple(found)


def _describe(layer: Dense | Norm | None) -> str:
    if layer is None:
        return "unit length"
    return "norm" if isinstance(layer, Norm) else "dense layer"
