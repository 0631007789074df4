"""Language models that were trained to judge documents: a prompt, and the logit of a word that would come next.

An allow-list again: a language model gives a number for every prompt, and only the one that it was trained with gives
scores. Which one, `scoring.prompts.choose_prompt` says.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from rankmill.errors import ModelError, UsageError
from rankmill.scoring.activation import activation_of
from rankmill.scoring.card import ModelCard, make_card
from rankmill.scoring.checks import check_vocabulary, refuse_prompt, refuse_quantised
from rankmill.scoring.files import read_json, read_json_if_any
from rankmill.scoring.limits import Limits, choose_limits
from rankmill.scoring.model_files import ModelFiles
from rankmill.scoring.modules import read_modules
from rankmill.scoring.numbers import integer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.prompt_encoder import PROMPT_ASSEMBLY_VERSION, PromptEncoder, PromptParts, tokenize_prompt
from rankmill.scoring.prompts import ARCHITECTURES, Prompt, choose_prompt
from rankmill.scoring.scorer import Scorer

# as sentence-transformers 5.4 and later save such a model, and a conversion with a head
_MODULES: tuple[list[str], ...] = ([], ["Transformer"], ["Transformer", "LogitScore"])
CLASSIFIER_HEAD = "score.weight"


@dataclass(frozen=True, slots=True)
class Words:
    """The words whose logits make the model's: positive minus negative."""

    positive: int
    """Token id."""
    negative: int | None
    """Token id; None where the positive word's logit is the model's."""


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A language model whose folder passed every check."""

    files: ModelFiles
    architecture: str
    prompt: Prompt
    parts: PromptParts
    words: Words | None
    """None for a conversion with a classification head, whose one row stands for both words."""
    limits: Limits
    activation: str

    def card(self, precision: str) -> ModelCard:
        """Describe it as it would be computed in `precision`."""
        return make_card(
            self.files,
            kind="language-model",
            family=str(self.files.config["model_type"]),
            architecture=self.architecture,
            limits=self.limits,
            activation=self.activation,
            precision=precision,
            input_format=self._input_format(),
            pooling=self._pooling(),
            identity={
                "assembly": PROMPT_ASSEMBLY_VERSION,
                "prompt": self.prompt.name,
                "parts": asdict(self.parts),
                "words": None if self.words is None else asdict(self.words),
            }
            | self.limits.identity,
        )

    def encoder(self) -> PromptEncoder:
        """Load what tokenises."""
        return PromptEncoder(self.files.tokenizer.text(), self.parts, self.limits)

    def load(self, options: ScorerOptions) -> Scorer:
        """Load the weights."""
        from rankmill.scoring.engines.torch_causal import load_causal  # noqa: PLC0415 - torch takes seconds
        from rankmill.scoring.pair_scorer import PairScorer  # noqa: PLC0415

        return PairScorer(self.card(options.precision), self.encoder(), load_causal(self, options), options)

    def _input_format(self) -> str:
        prompt = self.prompt
        text = "".join(
            (
                *prompt.opening,
                f"{self.parts.lead}QUERY{prompt.after_query}",
                *prompt.middle,
                f"{prompt.before_document}DOCUMENT",
                *prompt.closing,
            )
        )
        return f"{prompt.name}: " + text.replace("\n", "\\n")

    def _pooling(self) -> str:
        prompt = self.prompt
        if self.words is None:
            return "last token through the classification head"
        minus = "" if prompt.negative is None else f" minus that of {prompt.negative!r}"
        return f"last token, logit of {prompt.positive!r}{minus}"


def is_language_model(model: str, folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether a folder may hold one: an architecture that a prompt was made for, and nothing else behind the network.

    With a pooling behind it, the same architecture embeds texts (Qwen3-Embedding).

    Raises:
        ModelError: modules.json cannot be read.
    """
    kinds = [module.kind for module in read_modules(model, folder)]
    return architecture_of(config) in ARCHITECTURES and kinds in _MODULES


def architecture_of(config: Mapping[str, Any]) -> str:
    """The first of config.json's `architectures`, or empty."""
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def check(model: str, folder: Path, config: Mapping[str, Any], options: ScorerOptions) -> Prompt:
    """Find the prompt, and refuse what the small files rule out.

    Raises:
        ModelError: the model brings code, is quantised, contradicts itself, or nothing says which prompt it needs.
        UsageError: an option does not fit it.
    """
    architecture = architecture_of(config)
    if config.get("auto_map"):
        raise ModelError(
            f"The model {model!r} brings its own Python code (auto_map in config.json), which is never run. Give it in "
            "its transformers form."
        )
    refuse_quantised(model, config)
    family = architecture.partition("For")[0].lower()
    if config.get("model_type") != family:
        raise ModelError(
            f"The config.json of {model!r} contradicts itself: its architecture is {architecture}, its model_type "
            f"{config.get('model_type')!r} where {family!r} belongs."
        )
    prompt = choose_prompt(
        model,
        config,
        architecture=architecture,
        chat_template=_chat_template(model, folder),
        asked=options.template,
    )
    if options.instruction is not None and prompt.instruction is None:
        raise UsageError(
            f"--instruction was given, but the prompt of the model {model!r} ({prompt.name}) has no place for one; "
            "leave it out."
        )
    if options.long_documents == "chunk":
        raise UsageError(
            f"--long-documents chunk is for cross-encoders; the model {model!r} reads up to {prompt.max_length:,} "
            "tokens. Leave it out."
        )
    return prompt


def refuse_prompt_options(model: str, options: ScorerOptions) -> None:
    """Refuse options that only a language model understands.

    Raises:
        UsageError: one of them was given.
    """
    for flag, value in (("--instruction", options.instruction), ("--template", options.template)):
        if value is not None:
            raise UsageError(
                f"{flag} {value!r} was given, but the model {model!r} takes no prompt: it was trained on bare texts. "
                f"Leave {flag} out, or give a language model such as Qwen/Qwen3-Reranker-0.6B."
            )


def read(files: ModelFiles, options: ScorerOptions) -> LanguageModel:
    """Check a language model's files.

    Raises:
        ModelError: the model cannot be used; the sentence says why and what to do.
        UsageError: an option does not fit the model.
    """
    model, config, folder = files.name, files.config, files.location.folder
    prompt = check(model, folder, config, options)
    architecture = architecture_of(config)
    instruction = _stated_instruction(files, prompt) if options.instruction is None else options.instruction
    special = files.tokenizer.special
    _check_specials(model, prompt, special)
    parts = tokenize_prompt(prompt, instruction, special, files.tokenizer.text().tokenizer)
    words = _words(model, prompt, special) if architecture == prompt.language_model else None
    if words is None:
        _check_head(files)
    else:
        _check_logit_score(model, folder, words)
    check_vocabulary(model, config, files.tokenizer_json, [*parts.opening, *parts.middle, *parts.closing])
    limits = choose_limits(
        model,
        options,
        positions=integer(config, "max_position_embeddings", prompt.max_length),
        stated=[*files.stated_lengths, prompt.max_length],
        special_tokens=parts.special_tokens,
    )
    return LanguageModel(
        files=files,
        architecture=architecture,
        prompt=prompt,
        parts=parts,
        words=words,
        limits=limits,
        activation=activation_of(model, config, files.sentence_transformers, default=prompt.activation),
    )


def _chat_template(model: str, folder: Path) -> str:
    """The text of all chat templates: a file of its own, or an entry of tokenizer_config.json."""
    stated = read_json_if_any(model, folder / "tokenizer_config.json").get("chat_template")
    path = folder / "chat_template.jinja"
    # a model with several names them in a list; only the text matters here
    text = stated if isinstance(stated, str) else json.dumps(stated, ensure_ascii=False)
    return text + (path.read_text(encoding="utf-8", errors="replace") if path.is_file() else "")


def _stated_instruction(files: ModelFiles, prompt: Prompt) -> str | None:
    """The instruction that sentence-transformers would put into the model's own chat template, if its files name one.

    Raises:
        ModelError: they name a text that goes elsewhere.
    """
    stated = files.sentence_transformers
    found = (stated.get("prompts") or {}).get(stated.get("default_prompt_name"))
    mine = prompt.instruction is not None and prompt.signature in _chat_template(files.name, files.location.folder)
    if mine and isinstance(found, str) and found:
        stated = {}
    else:
        found = None
    refuse_prompt(files.name, stated)
    return found


def _check_specials(model: str, prompt: Prompt, tokenizer: Tokenizer) -> None:
    for name in prompt.special_tokens:
        if tokenizer.encode(name, add_special_tokens=False).ids != [tokenizer.token_to_id(name)]:
            raise ModelError(
                f"The tokenizer of the model {model!r} has no token {name!r}, which its prompt {prompt.name} is made "
                "of; this is another model's tokenizer, or another model."
            )


def _words(model: str, prompt: Prompt, tokenizer: Tokenizer) -> Words:
    def one_token(word: str) -> int:
        ids: list[int] = tokenizer.encode(word, add_special_tokens=False).ids
        if len(ids) != 1:
            raise ModelError(
                f"The tokenizer of the model {model!r} cuts {word!r} into {len(ids)} tokens; the prompt {prompt.name} "
                "reads its answer off a single one. This is another model's tokenizer, or another model."
            )
        return ids[0]

    return Words(one_token(prompt.positive), None if prompt.negative is None else one_token(prompt.negative))


def _check_logit_score(model: str, folder: Path, words: Words) -> None:
    """Refuse a folder whose own files read the answer off other tokens (`LogitScore` of sentence-transformers)."""
    for module in read_modules(model, folder):
        if module.kind != "LogitScore":
            continue
        stated = read_json(model, folder / module.path / "config.json")
        theirs = (stated.get("true_token_id"), stated.get("false_token_id"))
        if theirs != (words.positive, words.negative):
            raise ModelError(
                f"The model {model!r} reads its answer off the tokens {theirs[0]} and {theirs[1]} "
                f"({module.path}/config.json), its prompt off {words.positive} and {words.negative}: it was trained "
                "with another prompt, which is not built in."
            )


def _check_head(files: ModelFiles) -> None:
    head = files.tensors.get(CLASSIFIER_HEAD)
    if head is None or head.shape[:1] != (1,):
        outputs = "is missing" if head is None else f"has {head.shape[0] if head.shape else 0} outputs"
        raise ModelError(
            f"The classification head of the model {files.name!r} ({CLASSIFIER_HEAD}) {outputs}; a reranker's has "
            "exactly 1."
        )
