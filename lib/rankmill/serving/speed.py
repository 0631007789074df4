"""How fast a scorer is, learnt from its calls: a small one looks slow, because a call costs something by itself.

Seconds on one clock, whichever the caller has.
"""

_MEMORY = 0.8
"""Weight of what was known before a call; one call says little."""
_FARTHEST = 16
"""Times the tokens of the calls that were seen: what is said of more than that would be a guess."""
_KNOWN_SECONDS = 60.0
"""After so long without a call of like size the speed may be another."""


class Speed:
    """Tokens per second.

    Args:
        enough: tokens of a call that says what there is to know, of however many.
    """

    def __init__(self, enough: int) -> None:
        self.rate: float | None = None
        """The best guess; None before the first call."""
        self._enough = enough
        self._tokens = 0
        """Of the calls that it is from."""
        self._learnt_at = 0.0

    def of(self, tokens: int, now: float) -> float | None:
        """The rate for so many tokens; None where nobody knows."""
        known = self._tokens >= self._enough or tokens <= _FARTHEST * self._tokens
        return self.rate if known and now - self._learnt_at < _KNOWN_SECONDS else None

    def learn(self, tokens: int, seconds: float, now: float) -> None:
        """Take in a call; of one much smaller than those before counts only that it was faster."""
        rate = tokens / max(seconds, 1e-6)
        alike = 2 * tokens >= min(self._tokens, self._enough)
        if self.rate is None or now - self._learnt_at >= _KNOWN_SECONDS or self._tokens < min(tokens / 2, self._enough):
            self.rate, self._tokens, self._learnt_at = rate, tokens, now
        elif alike or rate > self.rate:
            self.rate = _MEMORY * self.rate + (1 - _MEMORY) * rate
            if alike:
                self._tokens, self._learnt_at = max(tokens, self._tokens), now

    def learn_most(self, tokens: int, seconds: float, now: float) -> None:
        """Take in a call that was broken off: it would have been slower."""
        if self.rate is None or tokens / max(seconds, 1e-6) < self.rate:
            self.learn(tokens, seconds, now)
