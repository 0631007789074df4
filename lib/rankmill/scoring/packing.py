"""Which pairs share a forward pass: token-budget micro-batches, padding counted."""

import numpy as np
from numpy.typing import NDArray

CPU_BATCH = 64
"""What a forward pass on a CPU costs beside its tokens, in tokens: the time in which the weights come out of memory."""


def pack(lengths: NDArray[np.int64], budget: int, fixed: int | None = None) -> list[NDArray[np.int64]]:
    """Cut pairs into micro-batches of at most `budget` tokens, padding included, as cheaply as can be.

    Pairs of similar length go together, longest first: the first batch is the one that needs the most memory, so a
    device that is too small shows at once and not after an hour. A batch costs its longest pair times its rows, and
    `fixed`; of all ways to cut the sorted pairs, this is one with the least sum (dynamic programming over where the
    first so many pairs are cut last). A pair longer than the budget makes a batch of one.

    Args:
        lengths: tokens per pair, shape (n,).
        budget: tokens, at least 1.
        fixed: tokens that a batch costs beside its own, `CPU_BATCH` on a CPU; None for a budget's worth, which makes as
            few batches as can be: right for a GPU, and for engines that need no padding.

    Returns:
        Positions into `lengths`, each exactly once; equal lengths keep input order.
    """
    order = np.argsort(-lengths, kind="stable")
    longest = np.maximum(lengths[order], 1)
    count = len(order)
    fixed = budget if fixed is None else fixed
    least = np.full(count + 1, np.iinfo(np.int64).max)  # cost of the first so many pairs
    least[0] = 0
    begins = np.zeros(count + 1, dtype=np.int64)  # of the last batch of the first so many pairs
    rows = np.arange(1, count + 1)
    for start in range(count):
        most = max(1, budget // int(longest[start]))
        costs = least[start] + fixed + longest[start] * rows[: min(most, count - start)]
        ends = slice(start + 1, start + 1 + len(costs))
        begins[ends][costs < least[ends]] = start
        np.minimum(least[ends], costs, out=least[ends])
    batches = []
    end = count
    while end:
        batches.append(order[begins[end] : end])
        end = int(begins[end])
    return batches[::-1]


def padding(lengths: NDArray[np.int64], batches: list[NDArray[np.int64]]) -> int:
    """Tokens of padding that `batches` compute: what was paid for beyond the real tokens."""
    return sum(int(lengths[batch].max()) * len(batch) - int(lengths[batch].sum()) for batch in batches)
