"""The prompts that language models were trained to judge documents with: built in, frozen, versioned.

A prompt is part of its model: another line break gives other scores. So its text stands here, not in a file that
anyone edits, and never changes: a correction gets a new number, and both are part of every fingerprint.

A prompt is put together from strings that the reference tokenises one by one; where it tokenises a longer text at once,
so do we, because byte-pair merges do not stop at the borders of our fields (`?` and a line break are one token).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rankmill.errors import ModelError, UsageError


@dataclass(frozen=True, slots=True)
class Prompt:
    """Opening, [instruction, before_query, QUERY, after_query], middle, [before_document, DOCUMENT], closing.

    What stands in brackets is tokenised as one string, each string of `opening`, `middle` and `closing` by itself.
    """

    name: str
    """`name@version`, as `--template` takes it."""
    source: str
    """Where its text comes from."""
    opening: tuple[str, ...]
    """May hold special tokens, as may `closing`."""
    instruction: str | None
    """Format string of the instruction's line; None for a prompt that takes none."""
    default_instruction: str | None
    """Used where none was given; None leaves the line out."""
    before_query: str
    after_query: str
    middle: tuple[str, ...]
    before_document: str
    closing: tuple[str, ...]
    positive: str
    """The word whose logit speaks for the document: one token."""
    negative: str | None
    """The word whose logit is subtracted: one token; None for none."""
    activation: str
    """What the reference makes of the logit; a model's own files may say otherwise."""
    max_length: int
    """Tokens per pair that the reference reads; positions reach further, but nobody measured that far."""
    language_model: str
    """The class of transformers that it was trained with."""
    classifiers: tuple[str, ...]
    """Classes of published conversions: the head's row of `positive`, minus that of `negative`, as one label."""
    special_tokens: tuple[str, ...]
    """Tokens that its strings must find in the vocabulary."""
    signature: str
    """A sentence of the prompt: a model whose chat template holds it was made for it."""
    known_as: str
    """Part of the published models' names, in lower case."""

    @property
    def architectures(self) -> tuple[str, ...]:
        """Classes of transformers that it fits."""
        return (self.language_model, *self.classifiers)

    def lead(self, instruction: str | None) -> str:
        """What stands between `opening` and the query."""
        chosen = self.default_instruction if instruction is None else instruction
        line = "" if self.instruction is None or chosen is None else self.instruction.format(chosen)
        return line + self.before_query


QWEN3_RERANKER = Prompt(
    name="qwen3-reranker@1",
    source="model card of Qwen/Qwen3-Reranker-0.6B, its transformers example",
    opening=(
        (
            "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
            'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
        ),
    ),
    instruction="<Instruct>: {}\n",
    default_instruction="Given a web search query, retrieve relevant passages that answer the query",
    before_query="<Query>: ",
    after_query="\n<Document>:",  # the blank that follows belongs to the document's first token
    middle=(),
    before_document=" ",
    closing=("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",),
    positive="yes",
    negative="no",
    activation="sigmoid",  # of yes minus no: the softmax over both
    max_length=8192,
    language_model="Qwen3ForCausalLM",
    classifiers=("Qwen3ForSequenceClassification",),
    special_tokens=("<|im_start|>", "<|im_end|>", "<think>", "</think>"),
    signature="Judge whether the Document meets the requirements based on the Query and the Instruct provided.",
    known_as="qwen3-reranker",
)

BGE_GEMMA = Prompt(
    name="bge-gemma@1",
    source="model card of BAAI/bge-reranker-v2-gemma; FlagEmbedding, inference/reranker/decoder_only/base.py",
    opening=("<bos>",),
    instruction=None,
    default_instruction=None,
    before_query="A: ",
    after_query="",
    middle=("\n",),
    before_document="B: ",
    closing=(
        "\n",
        (
            "Given a query A and a passage B, determine whether the passage contains an answer to the query by "
            "providing a prediction of either 'Yes' or 'No'."
        ),
    ),
    positive="Yes",
    negative=None,
    activation="identity",
    max_length=1024,  # as the card; FlagEmbedding counts query and document only, here the prompt counts too
    language_model="GemmaForCausalLM",
    classifiers=(),
    special_tokens=("<bos>",),
    signature="Given a query A and a passage B, determine whether the passage contains an answer to the query",
    known_as="bge-reranker-v2-gemma",
)

MXBAI_V2 = Prompt(
    name="mxbai-v2@1",
    source="mixedbread-ai/mxbai-rerank, mxbai_rerank/mxbai_rerank_v2.py",
    opening=(
        (
            "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
            "<|im_start|>user\n"
        ),
    ),
    instruction="instruction: {}\n",
    default_instruction=None,
    before_query="query: ",
    after_query="",
    middle=("\n",),
    before_document="document: ",
    closing=(
        "\n",
        (
            "You are a search relevance expert who evaluates how well documents match search queries. For each "
            "query-document pair, carefully analyze the semantic relationship between them, then provide your binary "
            "relevance judgment (0 for not relevant, 1 for relevant).\nRelevance:"
        ),
        "<|im_end|>\n<|im_start|>assistant\n",
    ),
    positive="1",
    negative="0",
    activation="identity",
    max_length=8192,
    language_model="Qwen2ForCausalLM",
    classifiers=(),
    special_tokens=("<|im_start|>", "<|im_end|>"),
    signature="You are a search relevance expert who evaluates how well documents match search queries.",
    known_as="mxbai-rerank-",
)

PROMPTS = (QWEN3_RERANKER, BGE_GEMMA, MXBAI_V2)
ARCHITECTURES = frozenset(architecture for prompt in PROMPTS for architecture in prompt.architectures)
NAMES = tuple(prompt.name for prompt in PROMPTS)


def choose_prompt(
    model: str, config: Mapping[str, Any], *, architecture: str, chat_template: str, asked: str | None
) -> Prompt:
    """Find the prompt that a language model was trained with.

    The architecture decides which prompts are possible. Among those, `--template` decides; else the sentence of the
    prompt in the model's own chat template; else the published name, in what the model is called or in the
    `_name_or_path` that its config.json was trained from. Architecture alone is not enough: a chat model
    has the same.

    Args:
        model: its name.
        config: config.json.
        architecture: one of `ARCHITECTURES`.
        chat_template: the text of the model's chat template, or empty.
        asked: `--template`.

    Raises:
        UsageError: `asked` is not known, or belongs to another architecture.
        ModelError: nothing says which prompt.
    """
    possible = [prompt for prompt in PROMPTS if architecture in prompt.architectures]
    choices = ", ".join(prompt.name for prompt in possible)
    if asked is not None:
        if asked not in NAMES:
            raise UsageError(f"--template {asked!r} is not known; it must be one of {', '.join(NAMES)}.")
        chosen = [prompt for prompt in possible if prompt.name == asked]
        if not chosen:
            raise UsageError(
                f"--template {asked} does not fit the model {model!r}, whose architecture is {architecture}; possible "
                f"is {choices}."
            )
        return chosen[0]
    for prompt in possible:
        if prompt.signature in chat_template:
            return prompt
    names = (_last_part(model), _last_part(str(config.get("_name_or_path", ""))))
    for prompt in possible:
        if any(prompt.known_as in name for name in names):
            return prompt
    raise ModelError(
        f"The model {model!r} is a language model ({architecture}), and nothing in its files says that it was trained "
        f"to judge documents, or with which prompt. If it was, give --template: {choices}."
    )


def _last_part(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].lower()
