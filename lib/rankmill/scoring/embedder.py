"""Vectors of single texts, by a bi-encoder: what an index of documents is made of, and what it is searched with."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rankmill.errors import ModelError
from rankmill.scoring.card import ModelCard
from rankmill.scoring.embedding_scorer import EmbeddingScorer
from rankmill.scoring.engines.choose import concrete
from rankmill.scoring.families.bi_encoder import BiEncoder
from rankmill.scoring.load import read_model
from rankmill.scoring.options import ScorerOptions

_PIECE = 1_000
"""Texts tokenised at a time: their ids are in memory together."""


class Embedder:
    """Embeds queries and documents, each with the prompt that the model has for them.

    The inner product of two vectors is the logit that the scorer of the same options gives to the pair.

    Args:
        scorer: of a bi-encoder.
    """

    def __init__(self, scorer: EmbeddingScorer) -> None:
        self._scorer = scorer
        self.dimension = self.queries(["a"]).shape[1]
        """Numbers of a vector."""

    @property
    def card(self) -> ModelCard:
        """What the model is; equal fingerprints give equal vectors, up to the rounding of the device."""
        return self._scorer.card

    def queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed queries.

        Returns:
            Float32, shape (n, dimension), input order.

        Raises:
            NonFiniteScoreError, PairTooLargeError: naming the texts, as positions in a piece of a thousand.
        """
        return self._vectors(texts, queries=True)

    def documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed documents; see `queries`."""
        return self._vectors(texts, queries=False)

    def _vectors(self, texts: Sequence[str], *, queries: bool) -> NDArray[np.float32]:
        if not texts:
            return np.zeros((0, self.dimension), dtype=np.float32)
        pieces = []
        for start in range(0, len(texts), _PIECE):
            piece = texts[start : start + _PIECE]
            empty = [""] * len(piece)
            pairs = self._scorer.encode(piece, empty) if queries else self._scorer.encode(empty, piece)
            pieces.append(self._scorer.vectors(pairs, queries=queries))
        return np.concatenate(pieces)


def load_embedder(options: ScorerOptions) -> Embedder:
    """Load a bi-encoder for embedding.

    Raises:
        ModelError: the model cannot be used, or gives no vectors of single texts.
        UsageError: a limit in `options` does not fit the model, or the device is not there.
    """
    options = concrete(options)
    model = read_model(options)
    if not isinstance(model, BiEncoder):
        raise ModelError(
            f"The model {options.model!r} is a {model.card(options.precision).kind}, which gives no vector of a text "
            "alone; an index needs a bi-encoder, such as sentence-transformers/all-MiniLM-L6-v2."
        )
    scorer = model.load(options)
    if not isinstance(scorer, EmbeddingScorer):
        raise TypeError(f"a bi-encoder was loaded as a {type(scorer).__name__}. This is a bug.")
    return Embedder(scorer)
