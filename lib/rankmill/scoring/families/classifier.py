"""Cross-encoders: encoders with a classification head of one label, as config.json and tokenizer.json describe them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rankmill.scoring.activation import activation_of
from rankmill.scoring.card import ModelCard, make_card
from rankmill.scoring.checks import check_vocabulary, refuse_prompt, refuse_tokenizer_code
from rankmill.scoring.families.architectures import Family, check_head, family_of, position_limit
from rankmill.scoring.limits import Limits, choose_limits
from rankmill.scoring.model_files import ModelFiles
from rankmill.scoring.numbers import integer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.scorer import Scorer
from rankmill.scoring.template import PairTemplate, read_template
from rankmill.scoring.tokens import ASSEMBLY_VERSION, PairEncoder


@dataclass(frozen=True, slots=True)
class Classifier:
    """A cross-encoder whose folder passed every check."""

    files: ModelFiles
    family: Family
    template: PairTemplate
    limits: Limits
    activation: str

    def card(self, precision: str) -> ModelCard:
        """Describe it as it would be computed in `precision`."""
        return make_card(
            self.files,
            kind="cross-encoder",
            family=self.family.name,
            architecture=self.family.architecture,
            limits=self.limits,
            activation=self.activation,
            precision=precision,
            input_format=describe_pair(self.files, self.template),
            pooling=_pooling(self.family, self.files.config),
            identity={"assembly": ASSEMBLY_VERSION, "template": [*self.template.parts, self.template.segments]}
            | self.limits.identity,
        )

    def encoder(self) -> PairEncoder:
        """Load what tokenises."""
        return PairEncoder(self.files.tokenizer.text(), self.template, self.limits)

    def load(self, options: ScorerOptions) -> Scorer:
        """Load the weights."""
        from rankmill.scoring.engines.load import load_classifier  # noqa: PLC0415 - torch takes seconds
        from rankmill.scoring.pair_scorer import PairScorer  # noqa: PLC0415

        engine = load_classifier(self, options)
        return PairScorer(self.card(options.precision), self.encoder(), engine, options)


def read(files: ModelFiles, options: ScorerOptions) -> Classifier:
    """Check a cross-encoder's files.

    Raises:
        ModelError: the model cannot be used; the sentence says why and what to do.
        UsageError: a limit in `options` does not fit the model.
    """
    model, config = files.name, files.config
    family = family_of(model, config)
    check_head(model, family, files.tensors)
    refuse_prompt(model, files.sentence_transformers)
    refuse_tokenizer_code(model, files.tokenizer_config)
    template = pair_template(files, token_types=family.token_types)
    check_vocabulary(model, config, files.tokenizer_json, [i for part in template.parts for i in part])
    limits = choose_limits(
        model,
        options,
        positions=position_limit(family, config),
        stated=files.stated_lengths,
        special_tokens=template.special_tokens,
        chunks=True,
    )
    kept = {name: tensor for name, tensor in files.tensors.items() if name not in family.unused}
    return Classifier(
        files=replace(files, tensors=kept),
        family=family,
        template=template,
        limits=limits,
        activation=activation_of(model, config, files.sentence_transformers),
    )


def pair_template(files: ModelFiles, *, token_types: bool) -> PairTemplate:
    """The pair format, with segments where tokenizer and network both know them.

    Args:
        files: the model's.
        token_types: whether this kind of network takes token_type_ids, and its tokenizers hand them out.

    Raises:
        ModelError: the tokenizer has no pair format, or not one of a known shape.
    """
    template = read_template(files.name, files.tokenizer.special)
    names = files.tokenizer_config.get("model_input_names")
    handed_out = "token_type_ids" in names if isinstance(names, list) else token_types
    if template.segments and not (handed_out and token_types and integer(files.config, "type_vocab_size", 2) > 1):
        # ModernBERT's post-processor numbers segments that the model has no embeddings for
        return PairTemplate(template.prefix, template.middle, template.suffix, segments=False)
    return template


def describe_pair(files: ModelFiles, template: PairTemplate) -> str:
    """What a pair looks like, for people."""
    tokenizer = files.tokenizer.special
    prefix, middle, suffix = (" ".join(tokenizer.id_to_token(i) or str(i) for i in part) for part in template.parts)
    segments = ", segments 0 and 1" if template.segments else ""
    return " ".join(part for part in (prefix, "query", middle, "document", suffix) if part) + segments


def _pooling(family: Family, config: Mapping[str, Any]) -> str:
    if family.name == "modernbert":
        pooled = {"cls": "first token", "mean": "mean of all tokens"}
        return pooled.get(str(config.get("classifier_pooling", "cls")), "first token")
    return "first token"
