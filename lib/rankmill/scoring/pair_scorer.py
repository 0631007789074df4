"""The scorer of every model that reads query and document together: packs pairs, runs an engine, restores the order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rankmill.errors import NonFiniteScoreError
from rankmill.scoring.card import ModelCard
from rankmill.scoring.engines.engine import Engine
from rankmill.scoring.model import Encoder
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.packing import pack
from rankmill.types import EncodedPairs

_NAMED_IN_MESSAGES = 10


class PairScorer:
    """Scores pairs in micro-batches of a bounded number of tokens.

    Args:
        card: what the model is.
        encoder: its pair assembly.
        engine: its forward pass.
        options: the batch size, where one was asked for.
    """

    def __init__(self, card: ModelCard, encoder: Encoder, engine: Engine, options: ScorerOptions) -> None:
        self.card = card
        self.batch_tokens = options.batch_tokens or engine.batch_tokens
        self._encoder = encoder
        self._engine = engine

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints give equal logits, up to the rounding of the device."""
        return self.card.fingerprint

    @property
    def activation(self) -> str:
        """`identity` or `sigmoid`."""
        return self.card.activation

    def encode(self, queries: Sequence[str], texts: Sequence[str]) -> EncodedPairs:
        """Tokenise pairs `(queries[i], texts[i])`; see `PairEncoder.encode`."""
        return self._encoder.encode(queries, texts)

    def logits(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        """Run the forward pass.

        Returns:
            Float32, shape (n,), input order. Empty in, empty out.

        Raises:
            NonFiniteScoreError: naming the pairs whose logit is NaN or infinite.
        """
        result = np.zeros(len(pairs), dtype=np.float32)
        batches = pack(pairs.lengths, self.batch_tokens)
        if not batches:
            return result
        outputs = [self._engine.run(pairs, rows) for rows in batches]
        result[np.concatenate(batches)] = self._engine.collect(outputs)
        refuse_non_finite(self.card.model, result)
        return result


def refuse_non_finite(model: str, logits: NDArray[np.float32]) -> None:
    """Raise for logits that are NaN or infinite.

    Raises:
        NonFiniteScoreError: naming their positions.
    """
    bad = np.flatnonzero(~np.isfinite(logits)).tolist()
    if bad:
        named = ", ".join(str(i) for i in bad[:_NAMED_IN_MESSAGES]) + (", …" if len(bad) > _NAMED_IN_MESSAGES else "")
        raise NonFiniteScoreError(
            f"The model {model!r} gave NaN or infinity for {len(bad)} of {len(logits)} pairs (positions {named}); its "
            "weights are damaged, or --precision is too narrow for them: try float32.",
            bad,
        )
