"""Cross-encoders that bring their own Python code, for those who said `--trust-remote-code` and gave a folder.

Off by default, because such code can do anything that this process can, and because nothing here knows what it
computes. What is known is kept narrow: the code lies in the model's own folder, where it can be read, does not change
and is part of the fingerprint; nothing of it is fetched; weights are safetensors; the result is one logit per pair.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankmill.errors import ModelError, UsageError
from rankmill.scoring.activation import activation_of
from rankmill.scoring.card import ModelCard, make_card
from rankmill.scoring.checks import check_vocabulary, refuse_prompt, refuse_tokenizer_code
from rankmill.scoring.files import sha256
from rankmill.scoring.limits import Limits, choose_limits
from rankmill.scoring.model_files import ModelFiles
from rankmill.scoring.numbers import integer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.scorer import Scorer
from rankmill.scoring.template import PairTemplate, read_template
from rankmill.scoring.tokens import ASSEMBLY_VERSION, PairEncoder

log = logging.getLogger(__name__)

_CLASSES = ("AutoConfig", "AutoModelForSequenceClassification")


@dataclass(frozen=True, slots=True)
class OwnCode:
    """A cross-encoder whose folder passed every check that is possible without knowing its code."""

    files: ModelFiles
    template: PairTemplate
    limits: Limits
    activation: str
    architecture: str
    """`module.Class` in the model's folder."""

    def card(self, precision: str) -> ModelCard:
        """Describe it; hashes its code along with its weights."""
        folder = self.files.location.folder
        code = {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*.py"))}
        segments = ", segments 0 and 1" if self.template.segments else ""
        return make_card(
            self.files,
            kind="cross-encoder",
            family=str(self.files.config.get("model_type") or "own code"),
            architecture=self.architecture,
            limits=self.limits,
            activation=self.activation,
            precision=precision,
            input_format="query and document in the tokenizer's pair format" + segments,
            pooling="as its own code does",
            identity={
                "assembly": ASSEMBLY_VERSION,
                "template": [*self.template.parts, self.template.segments],
                "code": code,
            }
            | self.limits.identity,
        )

    def encoder(self) -> PairEncoder:
        """Load what tokenises; none of the model's code is run for it."""
        return PairEncoder(self.files.tokenizer.text(), self.template, self.limits)

    def load(self, options: ScorerOptions) -> Scorer:
        """Run its code and load the weights into what it builds.

        Raises:
            ModelError: the code fails, or does not build a network for these weights.
            UsageError: the device is not there, or the precision is not float32.
        """
        from rankmill.scoring.engines.torch_own_code import load_own_code  # noqa: PLC0415 - torch takes seconds
        from rankmill.scoring.pair_scorer import PairScorer  # noqa: PLC0415

        if options.precision != "float32":
            raise UsageError(
                f"--precision {options.precision} needs to know which part of a network is its body; the code of "
                f"{self.files.name!r} is its own: use float32."
            )
        log.warning(
            "running the Python code in %s (%s), as --trust-remote-code allows",
            self.files.location.folder,
            self.architecture,
        )
        return PairScorer(self.card(options.precision), self.encoder(), load_own_code(self, options), options)


def brings_code(config: Mapping[str, Any]) -> bool:
    """Whether config.json names Python code for a classification model."""
    named = config.get("auto_map")
    return isinstance(named, Mapping) and _CLASSES[1] in named


def check(model: str, folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse what config.json alone rules out.

    Raises:
        ModelError: the code is not in the folder, or the model has not exactly one label.
    """
    for name in _CLASSES:
        _code_file(model, folder, str(config["auto_map"].get(name, "")))
    labels = config.get("id2label", config.get("num_labels", 2))
    count = len(labels) if isinstance(labels, Mapping) else labels
    if count != 1:
        raise ModelError(
            f"The model {model!r} has {count} labels (num_labels, or id2label, in config.json); a reranker has exactly "
            "1, its relevance."
        )


def read(files: ModelFiles, options: ScorerOptions) -> OwnCode:
    """Check the model's files.

    Raises:
        ModelError: the model cannot be used; the sentence says why.
        UsageError: a limit in `options` does not fit the model.
    """
    model, config = files.name, files.config
    refuse_prompt(model, files.sentence_transformers)
    refuse_tokenizer_code(model, files.tokenizer_config)
    template = _template(files)
    check_vocabulary(model, config, files.tokenizer_json, [i for part in template.parts for i in part])
    return OwnCode(
        files=files,
        template=template,
        limits=choose_limits(
            model,
            options,
            positions=integer(config, "max_position_embeddings", 512),
            stated=files.stated_lengths,
            special_tokens=template.special_tokens,
            chunks=True,
        ),
        activation=activation_of(model, config, files.sentence_transformers),
        architecture=str(config["auto_map"][_CLASSES[1]]),
    )


def _code_file(model: str, folder: Path, named: str) -> None:
    module, dot, _ = named.rpartition(".")
    if "--" in named:
        raise ModelError(
            f"The code of the model {model!r} lies in another repository ({named.partition('--')[0]}), which may hold "
            "something else tomorrow. Put its files into the model's folder and name them in config.json without "
            "the repository: only code that lies there is run."
        )
    if not dot or not module.isidentifier() or not (folder / f"{module}.py").is_file():
        raise ModelError(
            f"The code of the model {model!r} ({named or 'auto_map names none'}) is not in {folder}. "
            "--trust-remote-code runs only what lies in a folder on this machine: fetch the whole repository "
            "(hf download MODEL --local-dir FOLDER), read its .py files, and give --model FOLDER."
        )


def _template(files: ModelFiles) -> PairTemplate:
    template = read_template(files.name, files.tokenizer.special)
    names = files.tokenizer_config.get("model_input_names")
    handed_out = "token_type_ids" in names if isinstance(names, list) else True
    segments = template.segments and handed_out and integer(files.config, "type_vocab_size", 1) > 1
    return PairTemplate(template.prefix, template.middle, template.suffix, segments=segments)
