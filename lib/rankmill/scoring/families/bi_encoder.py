"""Bi-encoders: query and document become one vector each, and the score is how alike these are.

A folder of sentence-transformers: modules.json lists a network, a pooling, and maybe dense layers and a normalisation.
A network without a pooling is no bi-encoder: transformers' own files do not say how its tokens become one vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rankmill.errors import ModelError
from rankmill.scoring.card import ModelCard, make_card
from rankmill.scoring.checks import check_vocabulary
from rankmill.scoring.families.bodies import Body, body_of, position_limit
from rankmill.scoring.files import read_json
from rankmill.scoring.limits import Limits
from rankmill.scoring.model_files import ModelFiles
from rankmill.scoring.modules import (
    Dense,
    Module,
    Norm,
    check_modules,
    check_widths,
    pools_once,
    prompts_of,
    read_dense,
    read_modules,
    refuse_detours,
)
from rankmill.scoring.numbers import integer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.scorer import Scorer
from rankmill.scoring.sided_encoder import (
    SIDES_VERSION,
    Side,
    SidedEncoder,
    check_prompts,
    read_specials,
    sided_limits,
)

POOLINGS = {
    "cls": "first token",
    "max": "maximum of all tokens",
    "mean": "mean of all tokens",
    "lasttoken": "last token",
}
"""Kinds of pooling, and what a card says of them; several are joined in this order."""
_OLD_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_KNOWN_MODULES = ("Pooling", "Dense", "Normalize")
_NO_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Head:
    """How the hidden states of two texts become a score."""

    poolings: tuple[str, ...]
    """Keys of `POOLINGS`; the vectors are joined."""
    layers: tuple[Dense | None, ...]
    """What comes after, in order; None brings a vector to unit length."""
    similarity: str
    """`cosine` or `dot`."""

    @property
    def dense(self) -> list[Dense]:
        """The dense layers among `layers`."""
        return [layer for layer in self.layers if layer is not None]

    @property
    def identity(self) -> dict[str, Any]:
        """What of it belongs into a fingerprint, beyond the weights."""
        layers = ["normalize" if layer is None else layer.identity for layer in self.layers]
        return {"poolings": list(self.poolings), "layers": layers, "similarity": self.similarity}


@dataclass(frozen=True, slots=True)
class BiEncoder:
    """A bi-encoder whose folder passed every check."""

    files: ModelFiles
    body: Body
    head: Head
    query: Side
    document: Side
    limits: Limits

    def card(self, precision: str) -> ModelCard:
        """Describe it as it would be computed in `precision`."""
        pooling = [*(POOLINGS[name] for name in self.head.poolings)]
        pooling += ["unit length" if layer is None else "dense layer" for layer in self.head.layers]
        return make_card(
            with_layers(self.files, self.head.dense),
            kind="bi-encoder",
            family=self.body.name,
            architecture=self.body.architecture,
            limits=self.limits,
            activation="identity",
            precision=precision,
            input_format=describe_sides(self.files, self.query, self.document),
            pooling=", ".join([*pooling, f"{self.head.similarity} similarity"]),
            identity={
                "sides": [SIDES_VERSION, self.query.identity, self.document.identity],
                **self.head.identity,
                **self.limits.identity,
            },
        )

    def encoder(self) -> SidedEncoder:
        """Load what tokenises."""
        return SidedEncoder(self.files.tokenizer.text(), self.query, self.document)

    def load(self, options: ScorerOptions) -> Scorer:
        """Load the weights."""
        from rankmill.scoring.embedding_scorer import EmbeddingScorer  # noqa: PLC0415 - torch takes seconds
        from rankmill.scoring.engines.torch_embed import load_bi_encoder  # noqa: PLC0415

        engine = load_bi_encoder(self, options)
        return EmbeddingScorer(self.card(options.precision), self.encoder(), engine, options)


def is_bi_encoder(modules: Sequence[Module]) -> bool:
    """Whether modules.json has a pooling in it."""
    return any(module.kind == "Pooling" for module in modules)


def check(model: str, config: Mapping[str, Any], modules: Sequence[Module]) -> None:
    """Refuse what small files rule out.

    Raises:
        ModelError: the network or a module cannot be run here.
    """
    check_modules(model, modules, _KNOWN_MODULES)
    if not pools_once(modules):
        raise ModelError(
            f"The model {model!r} has the modules {', '.join(module.kind for module in modules)} (modules.json); known "
            "is a Transformer with one Pooling right after it."
        )
    body_of(model, config)


def read(files: ModelFiles, options: ScorerOptions) -> BiEncoder:
    """Check a bi-encoder's files.

    Raises:
        ModelError: the model cannot be used; the sentence says why and what to do.
        UsageError: a limit in `options` does not fit the model.
    """
    model, config, folder = files.name, files.config, files.location.folder
    body = body_of(model, config)
    modules = read_modules(model, folder)
    prompts = prompts_of(model, files.sentence_transformers)
    pooling = read_json(model, folder / modules[1].path / "config.json")
    if pooling.get("include_prompt") is False and any(prompts):
        raise ModelError(
            f"The model {model!r} leaves its prompt out of the pooling (include_prompt in {modules[1].path}), which "
            "this version cannot do."
        )
    check_prompts(model, prompts, files.tokenizer_json, files.tokenizer_config)
    prefix, suffix = read_specials(model, files.tokenizer.special)
    check_vocabulary(model, config, files.tokenizer_json, [*prefix, *suffix])
    specials = len(prefix) + len(suffix)
    length = stated_length(files)
    limits = sided_limits(
        model,
        options,
        positions=position_limit(body, config),
        query=length,
        document=length,
        query_specials=specials,
        specials=specials,
    )
    for module in modules[2:]:
        if module.kind == "Dense":
            refuse_detours(model, folder, module)
    head = Head(
        read_poolings(model, pooling),
        # sentence-transformers' own default, for configs that name no activation
        tuple(read_dense(model, folder, m, "tanh") if m.kind == "Dense" else None for m in modules[2:]),
        _similarity(model, files.sentence_transformers),
    )
    if "hidden_size" in config:
        check_widths(model, integer(config, "hidden_size", 0) * len(head.poolings), head.dense)
    room = limits.max_length - specials
    return BiEncoder(
        files=replace(files, tensors={n: tensor for n, tensor in files.tensors.items() if n not in body.unused}),
        body=body,
        head=head,
        query=Side(prompts[0], prefix, suffix, limits.max_query_tokens),
        document=Side(prompts[1], prefix, suffix, min(room, limits.max_document_tokens or room)),
        limits=limits,
    )


def stated_length(files: ModelFiles) -> int:
    """What sentence-transformers cuts texts to: its own `max_seq_length`, else the tokenizer's limit."""
    for stated in (files.sentence_bert.get("max_seq_length"), files.tokenizer_config.get("model_max_length")):
        if isinstance(stated, int | float) and not isinstance(stated, bool) and 1 <= stated < _NO_LIMIT:
            return int(stated)
    return _NO_LIMIT


def describe_sides(files: ModelFiles, query: Side, document: Side) -> str:
    """What the two sequences look like, for people."""
    tokenizer = files.tokenizer.special

    def written(side: Side, what: str) -> str:
        names = [[str(tokenizer.id_to_token(i) or i).strip() for i in part] for part in (side.prefix, side.suffix)]
        filled = [f"{tokenizer.id_to_token(side.filler)} …"] if side.filled_to else []
        return " ".join([*names[0], f"{side.prompt}{what}", *names[1], *filled])

    return f"{written(query, 'query')} and {written(document, 'document')}, apart"


def with_layers(files: ModelFiles, layers: Sequence[Dense | Norm]) -> ModelFiles:
    """The files as a card should count and hash them: with the layers that come after the network."""
    added = {f"{i}.{name}": tensor for i, layer in enumerate(layers) for name, tensor in layer.tensors.items()}
    paths = [layer.path for layer in layers if layer.path not in files.weights]
    return replace(files, weights=(*files.weights, *paths), tensors={**files.tensors, **added})


def read_poolings(model: str, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of `POOLINGS` that a Pooling's config.json names, in the order in which their vectors are joined.

    Raises:
        ModelError: it names another one.
    """
    stated = config.get("pooling_mode")
    if stated is None:
        stated = [mode for key, mode in _OLD_KEYS.items() if config.get(key)] or ["mean"]
    modes = [stated] if isinstance(stated, str) else list(stated)
    unknown = [str(mode) for mode in modes if mode not in POOLINGS]
    if unknown:
        raise ModelError(
            f"The model {model!r} pools its tokens by {', '.join(unknown)} (config.json of its Pooling); known are "
            f"{', '.join(POOLINGS)}."
        )
    return tuple(modes)


def _similarity(model: str, sentence_transformers: Mapping[str, Any]) -> str:
    name = sentence_transformers.get("similarity_fn_name") or "cosine"
    if name not in ("cosine", "dot"):
        raise ModelError(
            f"The model {model!r} compares by {name!r} (similarity_fn_name in config_sentence_transformers.json); "
            "known are cosine and dot."
        )
    return str(name)
