"""Whose turn it is: the order in which requests would end if all of them were served at once, in equal shares.

Processor sharing is fair but slow: everybody ends late. Serving one request after the other, in the order in which they
would have ended there, lets nobody end later than under equal shares (but for one call) and most of them much earlier
(Friedman and Henderson, "Fairness and efficiency in web server protocols", 2003). A request of 10 documents passes one
of 1,000; a stream of small ones does not keep the large one waiting for ever.
"""

import heapq


class FairOrder:
    """The clock of a server that is shared equally; all amounts in tokens."""

    def __init__(self) -> None:
        self._now = 0.0
        self._ends: list[float] = []

    def end_of(self, tokens: int) -> float:
        """When a request would end on this clock if it came now: who ends first is served first."""
        return self._now + tokens

    def arrive(self, tokens: int) -> float:
        """Take in a request; its `end_of`."""
        end = self.end_of(tokens)
        heapq.heappush(self._ends, end)
        return end

    def serve(self, tokens: int) -> None:
        """Let the clock go on by what was computed, whoever it was for."""
        left = float(tokens)
        while self._ends:
            until_next_end = (self._ends[0] - self._now) * len(self._ends)
            if until_next_end > left:
                self._now += left / len(self._ends)
                return
            left -= until_next_end
            self._now = heapq.heappop(self._ends)

    def leave(self, end: float) -> None:
        """Forget a request that was given up; one that has ended on this clock already is forgotten."""
        if end in self._ends:
            self._ends.remove(end)
            heapq.heapify(self._ends)
