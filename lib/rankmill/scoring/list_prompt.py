"""The prompt of jina-reranker-v3: all documents of a query, each with a mark behind it, then the query with its own.

Source: `format_docs_prompts_func` and `rerank` in the model's modelling file (jinaai/jina-reranker-v3; that of
jina-reranker-v3.5 has the same prompt and blocks). What they do to texts is done here: they are cut as tokens and
written as text again, marks inside them are taken out, and the prompt is tokenised as one. Other special tokens inside
a text are text here, and tokens there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rankmill.scoring.text_tokens import TextTokenizer

LIST_PROMPT_VERSION = 1
"""Part of every fingerprint; raised when the same texts would give other token ids, or other blocks, than before."""

DOCUMENT_MARK, QUERY_MARK = "<|embed_token|>", "<|rerank_token|>"
SPECIAL_TOKENS = ("<|im_start|>", "<|im_end|>", DOCUMENT_MARK, QUERY_MARK)
BLOCK_DOCUMENTS = 125
"""Of a prompt, at most."""

_OPENING = (
    "<|im_start|>system\n"
    "You are a search relevance expert who can determine a ranking of the passages based on how relevant they are to "
    "the query. If the query is a question, how relevant a passage is depends on how well it answers the question. If "
    "not, try to analyze the intent of the query and assess how well each passage satisfies the intent. If an "
    "instruction is provided, you should follow the instruction when determining the ranking."
    "<|im_end|>\n<|im_start|>"
)
_TASK = (
    "user\nI will provide you with {count} passages, each indicated by a numerical identifier. Rank the passages based "
    "on their relevance to query: {query}\n"
)
_BEFORE_DOCUMENT = '<passage id="{number}">\n'
_AFTER_DOCUMENT = "\n</passage>\n"
_BEFORE_QUERY, _AFTER_QUERY = "<query>\n", "\n</query>"
_CLOSING = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

INPUT_FORMAT = (
    (_OPENING + _TASK).replace("{count}", "N").replace("{query}", "QUERY")
    + _BEFORE_DOCUMENT.replace("{number}", "0")
    + f"DOCUMENT{DOCUMENT_MARK}{_AFTER_DOCUMENT}…{_BEFORE_QUERY}QUERY{QUERY_MARK}{_AFTER_QUERY}{_CLOSING}"
).replace("\n", "\\n")
"""The whole prompt, for people."""


class ListPrompt:
    """Writes prompts in one tokenizer's tokens.

    Args:
        special: the model's tokenizer, which knows `SPECIAL_TOKENS`: for the fixed strings.
        text: the same, reading special tokens as text: for strings that hold or touch what people wrote.
    """

    def __init__(self, special: Tokenizer, text: TextTokenizer) -> None:
        marks = special.encode(DOCUMENT_MARK + QUERY_MARK, add_special_tokens=False).ids
        self.document_mark, self.query_mark = marks
        self._opening, self._closing = (
            np.asarray(special.encode(fixed, add_special_tokens=False).ids, dtype=np.int32)
            for fixed in (_OPENING, _CLOSING)
        )
        self._text = text

    def ids(self, query: str, documents: Sequence[str]) -> NDArray[np.int32]:
        """The prompt of a query and its documents, which has as many document marks as documents, in their order.

        Args:
            query: cut to size.
            documents: cut to size.

        Returns:
            Shape (tokens,).
        """
        query, *documents = (text.replace(DOCUMENT_MARK, "").replace(QUERY_MARK, "") for text in (query, *documents))
        before = [_TASK.format(count=len(documents), query=query), *[_AFTER_DOCUMENT] * (len(documents) - 1)]
        texts = [
            f"{lead}{_BEFORE_DOCUMENT.format(number=number)}{document}"
            for number, (lead, document) in enumerate(zip(before, documents, strict=True))
        ]
        *marked, last = self._text.tokens([*texts, f"{_AFTER_DOCUMENT}{_BEFORE_QUERY}{query}", _AFTER_QUERY])
        marks = [*[self.document_mark] * len(documents), self.query_mark]
        parts = [np.append(tokens.ids, mark) for tokens, mark in zip(marked, marks, strict=True)]
        return np.concatenate([self._opening, *parts, last.ids, self._closing], dtype=np.int32, casting="same_kind")


def whole_prompt(query: str, documents: Sequence[str]) -> str:
    """The prompt as one text, special tokens included: what `ListPrompt.ids` are the tokens of."""
    passages = "\n".join(
        f"{_BEFORE_DOCUMENT.format(number=number)}{document}{DOCUMENT_MARK}\n</passage>"
        for number, document in enumerate(documents)
    )
    task = _TASK.format(count=len(documents), query=query)
    return f"{_OPENING}{task}{passages}\n{_BEFORE_QUERY}{query}{QUERY_MARK}{_AFTER_QUERY}{_CLOSING}"


@dataclass(frozen=True, slots=True)
class Room:
    """What a prompt may hold. All in tokens, without those of the prompt itself."""

    window: int
    """Of query, twice, and documents."""
    document: int
    """Of the longest document."""


def blocks(query_tokens: int, document_tokens: Sequence[int], room: Room) -> Iterator[slice]:
    """Cut a list that does not fit into one prompt, as the model's own code does: into runs of documents.

    A block ends with its 125th document, or where another one of the longest might not fit.

    Args:
        query_tokens: of the query.
        document_tokens: of each document, in order.
        room: of a prompt.
    """
    start, left = 0, room.window - 2 * query_tokens
    for stop, tokens in enumerate(document_tokens, start=1):
        left -= tokens
        if stop - start == BLOCK_DOCUMENTS or left <= room.document or stop == len(document_tokens):
            yield slice(start, stop)
            start, left = stop, room.window - 2 * query_tokens
