"""Which pairs share a forward pass: token-budget micro-batches, padding counted."""

import numpy as np
from numpy.typing import NDArray


def pack(lengths: NDArray[np.int64], budget: int) -> list[NDArray[np.int64]]:
    """Cut pairs into micro-batches of at most `budget` tokens, padding included.

    Pairs of similar length go together, longest first: the first batch is the one that needs the most memory, so a
    device that is too small shows at once and not after an hour. A batch's cost is its longest pair times its rows. A
    pair longer than the budget makes a batch of one.

    Args:
        lengths: tokens per pair, shape (n,).
        budget: tokens, at least 1.

    Returns:
        Positions into `lengths`, each exactly once; equal lengths keep input order.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        rows = max(1, budget // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + rows])
        start += rows
    return batches


def padding(lengths: NDArray[np.int64], batches: list[NDArray[np.int64]]) -> int:
    """Tokens of padding that `batches` compute: what was paid for beyond the real tokens."""
    return sum(int(lengths[batch].max()) * len(batch) - int(lengths[batch].sum()) for batch in batches)
