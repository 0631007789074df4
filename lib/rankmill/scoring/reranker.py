"""Reranking in two lines of Python, with neither Ray nor a server: `rankmill.load(...).rank(query, documents)`."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rankmill.errors import NonFiniteScoreError, UsageError
from rankmill.scoring.activation import activate
from rankmill.scoring.chunks import score
from rankmill.scoring.load import load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.overlap import SLICE_PAIRS, Pair, ahead, slices
from rankmill.scoring.scorer import Scorer
from rankmill.types import EncodedPairs

_ACTIVATIONS = {"raw": "identity", "sigmoid": "sigmoid"}


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document in a ranking."""

    index: int
    """Where it was among the documents given, from 0."""
    document: str
    score: float
    """After the activation."""
    logit: float
    """What the model said, and what the ranking goes by."""
    truncated: bool
    """Whether the query or the document was cut to fit."""
    best_start: int | None = None
    """First character that the best chunk covers; None for a document that was not read in several chunks."""
    best_end: int | None = None
    """The character after its last."""


@dataclass(frozen=True, slots=True)
class ScoredPairs:
    """`n` pairs with their scores, in input order."""

    logits: NDArray[np.float32]
    """Shape (n,)."""
    scores: NDArray[np.float32]
    """Shape (n,): after the activation."""
    truncated: NDArray[np.bool_]
    """Shape (n,)."""
    best: NDArray[np.int32] | None
    """Shape (n, 2): as in `chunks.Scored`."""

    def __len__(self) -> int:
        return len(self.logits)

    def span(self, i: int) -> tuple[int, int] | None:
        """Characters of the document that the best chunk of pair `i` covers; None where there is one chunk at most."""
        if self.best is None or self.best[i, 0] < 0:
            return None
        return int(self.best[i, 0]), int(self.best[i, 1])


@dataclass(frozen=True, slots=True)
class _Slice:
    """Pairs on their way to the model; equal ones once, so that they get equal logits."""

    pairs: EncodedPairs
    """The distinct ones."""
    rows: NDArray[np.int64]
    """Which of them each pair is, shape (n,)."""


class Reranker:
    """Scores pairs and ranks documents with a loaded model.

    Args:
        scorer: the model.
        activation: `model` (what its own files say), `raw` or `sigmoid`.
    """

    def __init__(self, scorer: Scorer, activation: str = "model") -> None:
        self.scorer = scorer
        self.activation = _ACTIVATIONS.get(activation, scorer.activation)

    def rank(self, query: str, documents: Iterable[str], top_k: int | None = None) -> list[RankedDocument]:
        """Rank documents by their relevance to a query.

        Args:
            query: may be empty.
            documents: any number of texts; empty ones are ranked too.
            top_k: keep the best k; None keeps all.

        Returns:
            The best first; equal logits in the order of `documents`.

        Raises:
            TypeError: the query or a document is no text.
            ValueError: `top_k` is less than 1.
            NonFiniteScoreError: the model gave NaN or infinity.
        """
        if not isinstance(query, str):
            raise TypeError(f"The query is of type {type(query).__name__}; it must be a str.")
        if isinstance(documents, str | bytes):
            raise TypeError(f"documents is a single {type(documents).__name__}; give a list of texts, even of one.")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k is {top_k}; it must be at least 1, or None for all documents.")
        texts = list(documents)
        found = self._joined((query, text) for text in _checked(texts))
        best = np.argsort(-found.logits, kind="stable")[:top_k].tolist()
        return [self._ranked(found, i, texts[i]) for i in best]

    def score(self, pairs: Iterable[Pair]) -> NDArray[np.float32]:
        """Score pairs of a query and a document.

        Args:
            pairs: any number of them; may be a generator, of which a few thousand are held at a time. For a scorer of
                lists, neighbours with the same query are a list.

        Returns:
            Scores (after the activation), shape (n,), in input order.

        Raises:
            TypeError: something is not a pair of texts.
            NonFiniteScoreError: the model gave NaN or infinity.
        """
        if isinstance(pairs, str | bytes):
            raise TypeError("pairs is a single text; give a list of (query, document).")
        return self._joined(_checked_pairs(pairs)).scores

    def stream(
        self, pairs: Iterable[Pair], slice_pairs: int = SLICE_PAIRS, *, before: int = 0
    ) -> Iterator[ScoredPairs]:
        """Score a stream of pairs, a slice at a time, tokenising one slice ahead; equal pairs of a slice cost one.

        For a scorer of lists, neighbours with the same query are a list, which is never cut.

        Args:
            pairs: query and text; read a slice ahead, in this thread.
            slice_pairs: pairs per slice at most; fewer of very long texts, more where a list is longer.
            before: pairs that errors count before the first of these.

        Raises:
            Exception: whatever `pairs` raised, as it was.
            NonFiniteScoreError: the model gave NaN or infinity.
        """
        first = before
        with closing(ahead(self._encode, slices(pairs, slice_pairs, listwise=self.scorer.listwise))) as encoded:
            for part in encoded:
                yield self._scored(part, first)
                first += len(part.rows)

    def _encode(self, pairs: list[Pair]) -> _Slice:
        if self.scorer.listwise:
            return _Slice(self.scorer.encode(*zip(*pairs, strict=True)), np.arange(len(pairs)))
        distinct: dict[Pair, int] = {}
        rows = np.asarray([distinct.setdefault(pair, len(distinct)) for pair in pairs])
        queries, texts = zip(*distinct, strict=True)
        return _Slice(self.scorer.encode(queries, texts), rows)

    def _scored(self, part: _Slice, first: int) -> ScoredPairs:
        try:
            scored = score(self.scorer, part.pairs)
        except NonFiniteScoreError as error:
            positions = (first + np.flatnonzero(np.isin(part.rows, error.pairs))).tolist()
            raise type(error)(
                f"{error} In the whole input, the first of them is pair {positions[0]}.", positions
            ) from error
        logits = scored.logits[part.rows]
        best = None if scored.best is None else scored.best[part.rows]
        return ScoredPairs(logits, activate(logits, self.activation), part.pairs.truncated[part.rows], best)

    def _joined(self, pairs: Iterable[Pair]) -> ScoredPairs:
        parts = list(self.stream(pairs))
        if not parts:
            none = np.zeros(0, dtype=np.float32)
            return ScoredPairs(none, none, np.zeros(0, dtype=np.bool_), None)
        spans = [part.best for part in parts if part.best is not None]
        return ScoredPairs(
            np.concatenate([part.logits for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.truncated for part in parts]),
            np.concatenate(spans) if spans else None,
        )

    @staticmethod
    def _ranked(found: ScoredPairs, i: int, text: str) -> RankedDocument:
        start, end = found.span(i) or (None, None)
        return RankedDocument(
            i, text, float(found.scores[i]), float(found.logits[i]), bool(found.truncated[i]), start, end
        )


def load(
    model: str = "builtin",
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    template: str | None = None,
    instruction: str | None = None,
    listwise: bool = False,
    max_length: int | None = None,
    max_query_tokens: int | None = None,
    max_document_tokens: int | None = None,
    long_documents: str = "truncate",
    chunk_overlap: int | None = None,
    activation: Literal["model", "raw", "sigmoid"] = "model",
    batch_tokens: int | str | None = None,
    device: str = "auto",
    engine: str = "auto",
    precision: str = "auto",
    deterministic: bool = False,
    threads: int | None = None,
) -> Reranker:
    """Load a model.

    Args:
        model: `builtin`, a folder, or a hub id; this and all but `activation` as in `ScorerOptions`.
        revision: of a hub id.
        trust_remote_code: run the Python code that a folder brings.
        template: prompt of a language model.
        instruction: what a language model is told to judge by.
        listwise: of an endpoint, whether it scores lists.
        max_length: tokens of a pair at most.
        max_query_tokens: tokens of a query at most.
        max_document_tokens: tokens of a document at most.
        long_documents: `truncate` or `chunk`.
        chunk_overlap: tokens that neighbouring chunks share.
        activation: what turns logits into scores; `model` is what its own files say.
        batch_tokens: tokens per forward pass at most, padding included; `auto` measures.
        device: `auto`, `cpu` or `cuda`.
        engine: `auto`, `torch` or `openvino`.
        precision: of the model's body.
        deterministic: the same call gives the same bits on the same machine.
        threads: of the CPU.

    Raises:
        ModelError: the model cannot be used; the sentence says why.
        UsageError: an option is not known or does not fit the model.
    """
    options = ScorerOptions(
        model=model,
        revision=revision,
        trust_remote_code=trust_remote_code,
        template=template,
        instruction=instruction,
        listwise=listwise,
        max_length=max_length,
        max_query_tokens=max_query_tokens,
        max_document_tokens=max_document_tokens,
        long_documents=long_documents,
        chunk_overlap=chunk_overlap,
        batch_tokens=batch_tokens,
        device=device,
        engine=engine,
        precision=precision,
        deterministic=deterministic,
        threads=threads,
    )
    if activation not in {"model", *_ACTIVATIONS}:
        raise UsageError(f"activation is {activation!r}; it must be one of model, raw, sigmoid.")
    return Reranker(load_scorer(options), activation)


def _checked(documents: Iterable[object]) -> Iterator[str]:
    for i, document in enumerate(documents):
        if not isinstance(document, str):
            raise TypeError(f"documents[{i}] is of type {type(document).__name__}; every document must be a str.")
        yield document


def _checked_pairs(pairs: Iterable[object]) -> Iterator[Pair]:
    for i, pair in enumerate(pairs):
        match pair:
            case (str(query), str(document)):
                yield query, document
            case _:
                raise TypeError(f"pairs[{i}] is {str(pair)[:60]!r}; every pair must be two texts, query and document.")
