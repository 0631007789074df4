"""The scorer of models that read query and document apart: embeds each distinct sequence once, then compares."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from rankmill.errors import PairTooLargeError
from rankmill.scoring.card import ModelCard
from rankmill.scoring.card_scorer import CardScorer
from rankmill.scoring.model import Encoder
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.packing import pack
from rankmill.scoring.pair_scorer import refuse_non_finite
from rankmill.types import EncodedPairs

T = TypeVar("T")


class EmbeddingEngine(Protocol):
    """Embeds sequences on one device, and compares what it embedded. Sequences travel as pairs without a document."""

    @property
    def name(self) -> str:
        """`torch`."""

    @property
    def device(self) -> str:
        """`cpu` or `cuda`."""

    @property
    def batch_tokens(self) -> int:
        """A good budget of tokens per micro-batch, padding included, where none was asked for."""

    def embed(self, sequences: EncodedPairs, rows: NDArray[np.int64], *, queries: bool) -> Any:
        """Embed the sequences at `rows`; may return before the device is done."""

    def join(self, embedded: Sequence[Any]) -> Any:
        """What one call of `embed` would have returned for the sequences of all of them."""

    def compare(self, queries: Any, documents: Any, which: NDArray[np.int64], where: NDArray[np.int64]) -> Any:
        """Score query `which[i]` with document `where[i]`, for every i; may return before the device is done."""

    def collect(self, scores: Sequence[Any]) -> NDArray[np.float32]:
        """Wait for what `compare` returned and join it: float32, in the order of the calls."""

    def fetch(self, embedded: Any) -> NDArray[np.float32]:
        """Wait for what `embed` returned, of a model with one vector a sequence: float32, shape (n, width)."""

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an exception says that the micro-batch was too large."""


class EmbeddingScorer(CardScorer):
    """Scores pairs by embeddings of their two sides.

    Queries are embedded first and kept. Documents follow in micro-batches, each compared with all its queries and
    dropped: token vectors of a whole shard would be a gigabyte.

    Args:
        card: what the model is.
        encoder: what makes sequences of texts.
        engine: its forward pass and its comparison.
        options: the batch size, where one was asked for.
    """

    def __init__(self, card: ModelCard, encoder: Encoder, engine: EmbeddingEngine, options: ScorerOptions) -> None:
        super().__init__(card, encoder)
        # `auto` is the engine's own: the probe runs pairs, not two sides
        self.batch_tokens = options.batch_tokens if isinstance(options.batch_tokens, int) else engine.batch_tokens
        self.engine = engine

    def logits(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        """Embed and compare.

        Returns:
            Float32, shape (n,), input order. Empty in, empty out.

        Raises:
            NonFiniteScoreError: naming the pairs whose similarity is NaN or infinite.
            PairTooLargeError: naming the pairs with a side that does not fit into memory, not even alone.
        """
        result = np.zeros(len(pairs), dtype=np.float32)
        if not len(pairs):
            return result
        engine, budget = self.engine, self.batch_tokens
        middles = pairs.offsets[:-1] + pairs.document_starts
        queries = _distinct(pairs.token_ids, pairs.offsets[:-1], middles)
        documents = _distinct(pairs.token_ids, middles, pairs.offsets[1:])

        def embed(rows: NDArray[np.int64]) -> Any:
            return engine.embed(queries.sequences, rows, queries=True)

        batches = pack(queries.sequences.lengths, budget)
        parts, too_large = self._run(batches, embed)
        self._refuse(pairs, np.flatnonzero(np.isin(queries.index, too_large)))
        embedded = engine.join(parts)
        place = np.empty(len(queries.sequences), dtype=np.int64)  # of each query in `embedded`
        place[np.concatenate(batches)] = np.arange(len(place))

        by_document = np.argsort(documents.index, kind="stable")  # pairs, document after document
        counts = np.bincount(documents.index, minlength=len(documents.sequences))
        firsts = np.cumsum(counts) - counts

        def score(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], Any]:
            found = np.concatenate([by_document[firsts[row] : firsts[row] + counts[row]] for row in rows])
            where = np.repeat(np.arange(len(rows)), counts[rows])
            vectors = engine.embed(documents.sequences, rows, queries=False)
            return found, engine.compare(embedded, vectors, place[queries.index[found]], where)

        scored, too_large = self._run(pack(documents.sequences.lengths, budget), score)
        self._refuse(pairs, np.flatnonzero(np.isin(documents.index, too_large)))
        result[np.concatenate([found for found, _ in scored])] = engine.collect([scores for _, scores in scored])
        refuse_non_finite(self.card.model, result)
        return result

    def vectors(self, pairs: EncodedPairs, *, queries: bool) -> NDArray[np.float32]:
        """Embed one side of pairs, for models with one vector a sequence.

        Args:
            pairs: as `encode` made them.
            queries: whether the queries' side, else the documents'.

        Returns:
            Float32, shape (n, width), input order; n must be at least 1.

        Raises:
            NonFiniteScoreError: naming the sequences with NaN or infinity in their vectors.
            PairTooLargeError: naming those that do not fit into memory, not even alone.
        """
        middles = pairs.offsets[:-1] + pairs.document_starts
        starts, ends = (pairs.offsets[:-1], middles) if queries else (middles, pairs.offsets[1:])
        distinct = _distinct(pairs.token_ids, starts, ends)

        def embed(rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
            return rows, self.engine.fetch(self.engine.embed(distinct.sequences, rows, queries=queries))

        found, too_large = self._run(pack(distinct.sequences.lengths, self.batch_tokens), embed)
        self._refuse(pairs, np.flatnonzero(np.isin(distinct.index, too_large)))
        place = np.empty(len(distinct.sequences), dtype=np.int64)
        place[np.concatenate([rows for rows, _ in found])] = np.arange(len(place))
        vectors = np.concatenate([values for _, values in found])[place][distinct.index]
        refuse_non_finite(self.card.model, vectors.sum(axis=1))
        return vectors

    def _run(
        self, batches: Sequence[NDArray[np.int64]], run: Callable[[NDArray[np.int64]], T]
    ) -> tuple[list[T], list[int]]:
        """Run micro-batches in order; one that the device has no room for is halved, and its halves in turn.

        Returns:
            What `run` returned, still in order, and the sequences that do not fit even alone.
        """
        pending = list(batches)[::-1]
        found: list[T] = []
        too_large: list[int] = []
        while pending:
            rows = pending.pop()
            try:
                found.append(run(rows))
            except Exception as error:
                if not self.engine.is_out_of_memory(error):
                    raise
                if len(rows) == 1:
                    too_large.append(int(rows[0]))
                    continue
                pending += [rows[len(rows) // 2 :], rows[: len(rows) // 2]]
            self.after_pass()
        return found, too_large

    def _refuse(self, pairs: EncodedPairs, too_large: NDArray[np.int64]) -> None:
        if len(too_large):
            raise PairTooLargeError(
                f"{len(too_large)} of {len(pairs)} pairs do not fit into the memory of {self.engine.device}, not even "
                f"alone: the longest has {int(pairs.lengths[too_large].max()):,} tokens. Lower --max-length.",
                too_large.tolist(),
            )


@dataclass(frozen=True, slots=True)
class _Distinct:
    """Equal sequences made one."""

    sequences: EncodedPairs
    """Each distinct one, in order of first appearance; as pairs without a document."""
    index: NDArray[np.int64]
    """Shape (n,): which of them each pair has."""


def _distinct(token_ids: NDArray[np.int32], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> _Distinct:
    places: dict[bytes, int] = {}
    first: list[int] = []
    index = np.zeros(len(starts), dtype=np.int64)
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        key = token_ids[start:end].tobytes()
        place = places.setdefault(key, len(first))
        if place == len(first):
            first.append(i)
        index[i] = place
    lengths = (ends - starts)[first]
    offsets = np.zeros(len(first) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    sequences = EncodedPairs(
        token_ids=np.concatenate([token_ids[starts[i] : ends[i]] for i in first]),
        offsets=offsets,
        document_starts=lengths.astype(np.int32),
        truncated=np.zeros(len(first), dtype=np.bool_),
    )
    return _Distinct(sequences, index)
