"""jina-reranker-v3 and v3.5: a Qwen3 that reads a query with all its documents, and is read at the marks behind them.

The modelling file that comes with it (`JinaForRanking`) is never run. What it computes: Qwen3's last hidden states at
the mark behind each document and at the one behind the query, through a projector (linear, ReLU, linear; no biases);
a document's score is the cosine of its vector and the query's. A document is read after those before it, and the query
after all of them: every score depends on the whole list and its order.

Sources: modelling file and config.json of jinaai/jina-reranker-v3; for jina-reranker-v3.5, whose layers see a sliding
window in turns, that its modelling file differs in the default lengths alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rankmill.errors import ModelError, UsageError
from rankmill.scoring.card import ModelCard, make_card
from rankmill.scoring.checks import check_vocabulary, refuse_prompt, refuse_quantised, refuse_tokenizer_code
from rankmill.scoring.limits import Limits, is_limit
from rankmill.scoring.list_prompt import (
    BLOCK_DOCUMENTS,
    INPUT_FORMAT,
    LIST_PROMPT_VERSION,
    SPECIAL_TOKENS,
    ListPrompt,
    Room,
    whole_prompt,
)
from rankmill.scoring.model_files import ModelFiles
from rankmill.scoring.numbers import integer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.scorer import Scorer
from rankmill.scoring.sided_encoder import SIDES_VERSION, Side, SidedEncoder

PROJECTOR = ("projector.0.weight", "projector.2.weight")
_ARCHITECTURE = "JinaForRanking"
_LENGTHS = {False: (512, 2048), True: (1024, 8192)}
"""Tokens of a query and of a document that are read by default: of v3, and of v3.5 with its sliding windows."""
_PROBE = ("what is it?", ("It is\n", "", " 42."))


@dataclass(frozen=True, slots=True)
class JinaLists:
    """A jina-reranker-v3 whose folder passed every check."""

    files: ModelFiles
    limits: Limits
    room: Room

    def card(self, precision: str) -> ModelCard:
        """Describe it as it would be computed in `precision`."""
        card = make_card(
            self.files,
            kind="listwise",
            family=str(self.files.config["model_type"]),
            architecture=_ARCHITECTURE,
            limits=self.limits,
            activation="identity",
            precision=precision,
            input_format=INPUT_FORMAT,
            pooling="cosine of query and document, each at its mark, projected",
            identity={
                "prompt": LIST_PROMPT_VERSION,
                "assembly": SIDES_VERSION,
                "block": [BLOCK_DOCUMENTS, self.room.window, self.room.document],
            }
            | self.limits.identity,
        )
        return replace(card, listwise=True)

    def encoder(self) -> SidedEncoder:
        """Load what tokenises."""
        query = Side("", (), (), self.limits.max_query_tokens)
        return SidedEncoder(self.files.tokenizer.text(), query, Side("", (), (), self._document_tokens))

    def load(self, options: ScorerOptions) -> Scorer:
        """Load the weights."""
        from rankmill.scoring.block_scorer import BlockScorer  # noqa: PLC0415 - with torch, which takes seconds
        from rankmill.scoring.engines.torch_device import is_out_of_memory  # noqa: PLC0415
        from rankmill.scoring.engines.torch_lists import load_lists  # noqa: PLC0415

        text = self.files.tokenizer.text()
        prompt = ListPrompt(self.files.tokenizer.special, text)
        embed, device = load_lists(self.files, PROJECTOR, prompt, options)
        return BlockScorer(
            self.card(options.precision),
            self.encoder(),
            text=text,
            prompt=prompt,
            room=self.room,
            embed=embed,
            device=device,
            is_out_of_memory=is_out_of_memory,
        )

    @property
    def _document_tokens(self) -> int:
        return self.limits.max_length - self.limits.max_query_tokens


def is_jina_lists(config: Mapping[str, Any]) -> bool:
    """Whether config.json names that modelling code's class."""
    return config.get("architectures") == [_ARCHITECTURE]


def check(model: str, config: Mapping[str, Any], options: ScorerOptions) -> None:
    """Refuse what config.json alone rules out, and options that have no meaning for it.

    Raises:
        ModelError: it is no Qwen3, or quantised.
        UsageError: naming the option.
    """
    asked = {
        "--instruction": options.instruction is not None,
        "--template": options.template is not None,
        "--batch-tokens": options.batch_tokens is not None,
        "--long-documents chunk": options.long_documents == "chunk",
    }
    for flag, given in asked.items():
        if given:
            raise UsageError(
                f"{flag} was given with the model {model!r}, which reads a query and all its documents in one prompt "
                "of its own, cuts documents that do not fit, and takes one list at a time: leave it out."
            )
    if config.get("model_type") != "qwen3":
        raise ModelError(
            f"The config.json of {model!r} contradicts itself: its architecture is {_ARCHITECTURE}, its model_type "
            f"{config.get('model_type')!r} where 'qwen3' belongs."
        )
    refuse_quantised(model, config)


def read(files: ModelFiles, options: ScorerOptions) -> JinaLists:
    """Check the model's files.

    Raises:
        ModelError: the model cannot be used; the sentence says why.
        UsageError: a limit in `options` does not fit the model.
    """
    model, config = files.name, files.config
    check(model, config, options)
    refuse_prompt(model, files.sentence_transformers)
    refuse_tokenizer_code(model, files.tokenizer_config)
    _check_projector(files)
    _check_tokenizer(files)
    limits, room = _limits(files, options)
    return JinaLists(files, limits, room)


def _limits(files: ModelFiles, options: ScorerOptions) -> tuple[Limits, Room]:
    model, config = files.name, files.config
    sliding = bool(config.get("use_sliding_window")) or "sliding_attention" in (config.get("layer_types") or ())
    query, document = _LENGTHS[sliding]
    positions = integer(config, "max_position_embeddings", 32_768)
    window = min([positions, *(int(limit) for limit in files.stated_lengths if is_limit(limit))])
    if options.max_length is not None and options.max_length > window:
        raise UsageError(
            f"--max-length {options.max_length} is more than the {window} tokens that the model {model!r} reads of a "
            "whole list; leave it out, or give less."
        )
    pair = options.max_length or window
    query = options.max_query_tokens or max(1, min(query, window // 4, pair // 2))
    longest = min(options.max_document_tokens or min(document, window // 2), pair - query)
    if longest < 1:
        raise UsageError(
            f"--max-query-tokens {query} leaves nothing for the document in --max-length {pair}; give at most "
            f"{pair - 1}."
        )
    if 2 * query + longest > window:
        raise UsageError(
            f"A query of {query} tokens, which is in the prompt of the model {model!r} twice, and a document of "
            f"{longest} are more than the {window} that it reads; lower --max-query-tokens or --max-document-tokens."
        )
    return Limits(query + longest, query, options.max_document_tokens), Room(window, longest)


def _check_projector(files: ModelFiles) -> None:
    shapes = [files.tensors[name].shape if name in files.tensors else None for name in PROJECTOR]
    first, second = shapes
    hidden = integer(files.config, "hidden_size", 0)
    if first is None or second is None or len(first) != 2 or len(second) != 2:
        missing = [name for name, shape in zip(PROJECTOR, shapes, strict=True) if shape is None or len(shape) != 2]
        raise ModelError(
            f"The weights of the model {files.name!r} are incomplete: {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing or no matrix."
        )
    if first[1] != hidden or second[1] != first[0]:
        raise ModelError(
            f"The projector of the model {files.name!r} has matrices of {first} and {second}, which do not follow on "
            f"each other and on its hidden states of {hidden}. Fetch it again."
        )


def _check_tokenizer(files: ModelFiles) -> None:
    special = files.tokenizer.special
    for name in SPECIAL_TOKENS:
        if special.encode(name, add_special_tokens=False).ids != [special.token_to_id(name)]:
            raise ModelError(
                f"The tokenizer of the model {files.name!r} has no token {name!r}, which its prompt is made of; this "
                "is another model's tokenizer, or another model."
            )
    query, documents = _PROBE
    prompt = ListPrompt(special, files.tokenizer.text())
    whole: list[int] = special.encode(whole_prompt(query, documents), add_special_tokens=False).ids
    if prompt.ids(query, documents).tolist() != whole:
        raise ModelError(
            f"The tokenizer of the model {files.name!r} makes other tokens of a prompt than of its parts between "
            "special tokens, which this version cannot do."
        )
    check_vocabulary(files.name, files.config, files.tokenizer_json, whole)
