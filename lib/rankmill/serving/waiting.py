"""What of a request is in no call yet: pairs, which may be shared out over calls, or lists, which are never cut.

Costs are the tokens of the pairs alone: how much padding there will be, nobody knows before the scorer has cut a call
into micro-batches of like lengths.
"""

import numpy as np
from numpy.typing import NDArray

from rankmill.scoring.lists import list_edges


class Waiting:
    """Rows of a request that wait for a call.

    Args:
        costs: of each row, shape (n,).
        lists: which list each row is in, ascending, shape (n,); None where they may be taken one by one.
    """

    def __init__(self, costs: NDArray[np.int64], lists: NDArray[np.int32] | None = None) -> None:
        self._costs = costs
        self._units = np.arange(len(costs), dtype=np.int32) if lists is None else lists
        # longest first, so that pairs of similar length share micro-batches; lists in their order
        self._rows = np.argsort(-costs, kind="stable") if lists is None else np.arange(len(costs))
        self._measure()

    def __len__(self) -> int:
        """Rows that wait."""
        return len(self._rows)

    @property
    def least(self) -> int:
        """Cost of the least that can be taken; 0 where nothing waits."""
        return int(self._sums[0]) if len(self._rows) else 0

    @property
    def cost(self) -> int:
        """Of all that waits."""
        return int(self._sums[-1]) if len(self._rows) else 0

    def take(self, budget: int, *, at_least_one: bool) -> NDArray[np.int64]:
        """The next rows that fit, no longer waiting.

        Args:
            budget: that they may cost.
            at_least_one: take the least that can be taken even if it costs more.
        """
        fitting = int(np.searchsorted(self._sums, budget, side="right"))
        end = self._edges[max(fitting, 1) if at_least_one and len(self._rows) else fitting]
        rows, self._rows = self._rows[:end], self._rows[end:]
        self._measure()
        return rows

    def put_back(self, rows: NDArray[np.int64]) -> None:
        """Let rows wait again that were taken last."""
        self._rows = np.concatenate([rows, self._rows])
        self._measure()

    def _measure(self) -> None:
        """Where what cannot be cut begins and ends, and the cost of the first of it, of the first two, and so on."""
        self._edges = list_edges(self._units[self._rows])
        self._sums = np.cumsum(self._costs[self._rows])[self._edges[1:] - 1]
