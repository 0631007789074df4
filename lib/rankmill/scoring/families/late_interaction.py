"""Late interaction (ColBERT): query and document become one vector per token, and every token finds its best match.

`score = sum over the query's tokens of max over the document's tokens of their cosine`

Khattab and Zaharia, ColBERT (2020). Two kinds of folders hold such models:

* Stanford's (`families.colbert`): config.json names HF_ColBERT, artifact.metadata holds lengths and markers, the
  projection is `linear.weight` beside the network's weights;
* PyLate's (`families.pylate`): modules.json lists a Transformer and dense layers, config_sentence_transformers.json
  holds the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from rankmill.errors import ModelError
from rankmill.scoring.card import ModelCard, make_card
from rankmill.scoring.checks import check_vocabulary
from rankmill.scoring.families.bi_encoder import describe_sides, with_layers
from rankmill.scoring.families.bodies import Body, position_limit
from rankmill.scoring.limits import Limits
from rankmill.scoring.model_files import ModelFiles
from rankmill.scoring.modules import Dense, check_widths
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

_MASK_TOKENS = ("[MASK]", "<mask>")


@dataclass(frozen=True, slots=True)
class Interaction:
    """What the model's files say about how tokens meet, beyond the two sides."""

    layers: tuple[Dense, ...]
    """From hidden states to token vectors."""
    skipped: tuple[int, ...]
    """Tokens of a document that take no part: punctuation."""
    attend_to_filler: bool
    """Whether the network sees the tokens that fill a query up; their own vectors count in any case."""
    beside_the_network: tuple[str, ...] = ()
    """Weights of `layers` that lie in the network's own file."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What either kind of folder says."""

    query_marker: str
    document_marker: str
    query_length: int
    document_length: int
    expands: bool
    attends: bool
    skiplist: tuple[str, ...]
    prompts: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class LateInteraction:
    """A late-interaction model whose folder passed every check."""

    files: ModelFiles
    body: Body
    interaction: Interaction
    query: Side
    document: Side
    limits: Limits

    def card(self, precision: str) -> ModelCard:
        """Describe it as it would be computed in `precision`."""
        width = self.interaction.layers[-1].tensors["linear.weight"].shape[0]
        return make_card(
            with_layers(self.files, self.interaction.layers),
            kind="late-interaction",
            family=self.body.name,
            architecture=self.body.architecture,
            limits=self.limits,
            activation="identity",
            precision=precision,
            input_format=describe_sides(self.files, self.query, self.document),
            pooling=f"one vector of {width} numbers per token, sum over the query of the best match in the document",
            identity={
                "sides": [SIDES_VERSION, self.query.identity, self.document.identity],
                "layers": [layer.identity for layer in self.interaction.layers],
                "skipped": list(self.interaction.skipped),
                "attend_to_filler": self.interaction.attend_to_filler,
                **self.limits.identity,
            },
        )

    def encoder(self) -> SidedEncoder:
        """Load what tokenises."""
        # PyLate keeps its markers as ordinary added tokens, which a text could then contain
        markers = frozenset({self.query.prefix[1], self.document.prefix[1]})
        return SidedEncoder(self.files.tokenizer.text(markers), self.query, self.document)

    def load(self, options: ScorerOptions) -> Scorer:
        """Load the weights."""
        from rankmill.scoring.embedding_scorer import EmbeddingScorer  # noqa: PLC0415 - torch takes seconds
        from rankmill.scoring.engines.torch_embed import load_late_interaction  # noqa: PLC0415

        engine = load_late_interaction(self, options)
        return EmbeddingScorer(self.card(options.precision), self.encoder(), engine, options)


def assemble(
    files: ModelFiles, body: Body, layers: tuple[Dense, ...], statement: Statement, options: ScorerOptions
) -> LateInteraction:
    """Check what either kind of folder says against its tokenizer and its network.

    Raises:
        ModelError: the model cannot be used; the sentence says why and what to do.
        UsageError: a limit in `options` does not fit the model.
    """
    model, config = files.name, files.config
    check_prompts(model, statement.prompts, files.tokenizer_json, files.tokenizer_config)
    tokenizer = files.tokenizer.special
    prefix, suffix = read_specials(model, tokenizer)
    if not prefix:
        raise ModelError(f"The tokenizer of the model {model!r} puts no token before a text for a marker to follow.")
    query_prefix, document_prefix = (
        (prefix[0], _marker(model, tokenizer, marker), *prefix[1:])
        for marker in (statement.query_marker, statement.document_marker)
    )
    specials = len(query_prefix) + len(suffix)
    limits = sided_limits(
        model,
        options,
        positions=position_limit(body, config),
        query=statement.query_length,
        document=statement.document_length,
        query_specials=specials,
        specials=specials,
    )
    if "hidden_size" in config:
        check_widths(model, integer(config, "hidden_size", 0), layers)
    filler = _mask(model, tokenizer, files.tokenizer_config) if statement.expands else 0
    check_vocabulary(model, config, files.tokenizer_json, [*query_prefix, *document_prefix, *suffix, filler])
    room = limits.max_length - specials
    filled_to = min(statement.query_length, position_limit(body, config)) if statement.expands else 0
    beside = tuple(name for layer in layers if layer.path in files.weights for name in layer.tensors)
    unknown = tokenizer.token_to_id(str(files.tokenizer_json["model"].get("unk_token")))
    # a word without a token of its own is left out: its id would be that of all unknown words
    skipped = {tokenizer.token_to_id(word) for word in statement.skiplist} - {None, unknown}
    return LateInteraction(
        files=files,
        body=body,
        interaction=Interaction(layers, tuple(sorted(i for i in skipped if i is not None)), statement.attends, beside),
        query=Side(statement.prompts[0], query_prefix, suffix, limits.max_query_tokens, filled_to, filler),
        document=Side(statement.prompts[1], document_prefix, suffix, min(room, limits.max_document_tokens or room)),
        limits=limits,
    )


def without_nulls(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without the keys that hold null, which is how both libraries write a default."""
    return {key: value for key, value in config.items() if value is not None}


def weights_without(files: ModelFiles, body: Body, *names: str) -> dict[str, Any]:
    """The weights that `body` reads, but for some."""
    return {name: tensor for name, tensor in files.tensors.items() if name not in (*body.unused, *names)}


def _marker(model: str, tokenizer: Tokenizer, marker: str) -> int:
    found = tokenizer.token_to_id(marker) if marker else None
    if found is None:
        raise ModelError(
            f"The model {model!r} marks queries or documents with {marker!r}, which is no token of its tokenizer.json."
        )
    return int(found)


def _mask(model: str, tokenizer: Tokenizer, tokenizer_config: Mapping[str, Any]) -> int:
    stated = tokenizer_config.get("mask_token")
    content = stated.get("content") if isinstance(stated, Mapping) else stated
    for name in (content, *_MASK_TOKENS):
        found = tokenizer.token_to_id(name) if isinstance(name, str) else None
        if found is not None:
            return int(found)
    raise ModelError(f"The model {model!r} fills queries up with mask tokens, but its tokenizer has none.")
