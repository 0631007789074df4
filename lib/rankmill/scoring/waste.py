"""What a scorer's forward passes compute beside the tokens of its pairs."""

import numpy as np
from numpy.typing import NDArray

from rankmill.scoring.packing import padding
from rankmill.scoring.pair_scorer import PairScorer
from rankmill.scoring.scorer import Scorer


def padding_tokens(scorer: Scorer, lengths: NDArray[np.int64]) -> int | None:
    """Tokens of padding of one call.

    Args:
        scorer: whose batches are asked for.
        lengths: tokens per pair of the call, chunks counted apart; shape (n,).

    Returns:
        0 for an engine that needs none; None for a scorer whose batches are made elsewhere.
    """
    if not isinstance(scorer, PairScorer):
        return None
    if is_packed(scorer):
        return 0
    return padding(lengths, scorer.batches(lengths))


def is_packed(scorer: Scorer) -> bool:
    """Whether a scorer's engine takes pairs one after the other, without padding."""
    from rankmill.scoring.engines.torch_packed import TorchPacked  # noqa: PLC0415 - torch takes seconds

    return isinstance(scorer, PairScorer) and isinstance(scorer.engine, TorchPacked)
