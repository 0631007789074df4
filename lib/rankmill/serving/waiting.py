"""What of a request is in no call yet: pairs, which may be shared out over calls, or lists, which are never cut."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rankmill.scoring.lists import list_edges


class Waiting(Protocol):
    """Rows of a request that wait for a call. Costs are tokens, padding included."""

    def __len__(self) -> int:
        """Rows that wait."""

    @property
    def next_cost(self) -> int:
        """Of the least that can be taken; 0 where nothing waits."""

    @property
    def cost(self) -> int:
        """Of a call with all that waits."""

    def cost_of(self, rows: NDArray[np.int64]) -> int:
        """Of rows that were taken."""

    def take(self, budget: int, *, at_least_one: bool) -> NDArray[np.int64]:
        """The next rows that fit, no longer waiting.

        Args:
            budget: that they may cost.
            at_least_one: take the least that can be taken even if it costs more.
        """

    def put_back(self, rows: NDArray[np.int64]) -> None:
        """Let rows wait again that were taken last."""


def waiting(costs: NDArray[np.int64], lists: NDArray[np.int32] | None) -> Waiting:
    """All rows of a request, by the cost of each, shape (n,), and the list that each is in."""
    return WaitingPairs(costs) if lists is None else WaitingLists(costs, lists)


class WaitingPairs:
    """Longest first, so that pairs of similar length share micro-batches; all cost what the first of them does."""

    def __init__(self, costs: NDArray[np.int64]) -> None:
        self._costs = costs
        self._rows = np.argsort(-costs, kind="stable")

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def next_cost(self) -> int:
        """See `Waiting`."""
        return int(self._costs[self._rows[0]]) if len(self._rows) else 0

    @property
    def cost(self) -> int:
        """See `Waiting`."""
        return self.next_cost * len(self._rows)

    def cost_of(self, rows: NDArray[np.int64]) -> int:
        """See `Waiting`."""
        return int(self._costs[rows[0]]) * len(rows)

    def take(self, budget: int, *, at_least_one: bool) -> NDArray[np.int64]:
        """See `Waiting`."""
        fitting = budget // self.next_cost if len(self._rows) else 0
        rows = self._rows[: max(fitting, 1 if at_least_one else 0)]
        self._rows = self._rows[len(rows) :]
        return rows

    def put_back(self, rows: NDArray[np.int64]) -> None:
        """See `Waiting`."""
        self._rows = np.concatenate([rows, self._rows])


class WaitingLists:
    """In the order of the request; no list is taken in part."""

    def __init__(self, costs: NDArray[np.int64], lists: NDArray[np.int32]) -> None:
        self._costs = costs
        self._lists = lists
        self._rows = np.arange(len(costs))

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def next_cost(self) -> int:
        """See `Waiting`."""
        return int(self._sums()[0]) if len(self._rows) else 0

    @property
    def cost(self) -> int:
        """See `Waiting`."""
        return self.cost_of(self._rows)

    def cost_of(self, rows: NDArray[np.int64]) -> int:
        """See `Waiting`."""
        return int(self._costs[rows].sum())

    def take(self, budget: int, *, at_least_one: bool) -> NDArray[np.int64]:
        """See `Waiting`."""
        if not len(self._rows):
            return self._rows
        fitting = int(np.searchsorted(self._sums(), budget, side="right"))
        end = list_edges(self._lists[self._rows])[max(fitting, 1 if at_least_one else 0)]
        rows, self._rows = self._rows[:end], self._rows[end:]
        return rows

    def put_back(self, rows: NDArray[np.int64]) -> None:
        """See `Waiting`."""
        self._rows = np.concatenate([rows, self._rows])

    def _sums(self) -> NDArray[np.int64]:
        """Cost of the next list, of the next two, and so on."""
        sums: NDArray[np.int64] = np.cumsum(self._costs[self._rows])[list_edges(self._lists[self._rows])[1:] - 1]
        return sums
