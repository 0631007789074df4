"""One scorer at work: loaded and tested, with its batcher and its cache. Knows nothing of Ray."""

import logging
import time

import numpy as np
from numpy.typing import NDArray

from rankmill.errors import ModelError
from rankmill.scoring.chunks import best_of_chunks
from rankmill.scoring.load import load_scorer
from rankmill.scoring.scorer import Scorer
from rankmill.scoring.self_test import self_test
from rankmill.serving.backend import ModelInfo, Numbers, Scored
from rankmill.serving.batcher import Batcher
from rankmill.serving.cache import ScoreCache, keys
from rankmill.serving.slices import take
from rankmill.types import EncodedPairs

_log = logging.getLogger("rankmill")

_CALL_BATCHES = 2
"""Micro-batches of the scorer per call: more of them are packed a little better, and keep newcomers waiting longer."""
_TEXT_CALL_BYTES = 65_536
"""Per call of a scorer that takes texts and has no micro-batches."""
_CANARY = ("what is the capital of France", "Paris is the capital and largest city of France.")


def load_checked(info: ModelInfo) -> Scorer:
    """Load a model's scorer, and make sure that it is the model that was deployed and that it works.

    Raises:
        ModelError: it cannot be used, has other files here, or failed its self-test.
        UsageError: its options do not fit this machine.
    """
    started = time.perf_counter()
    scorer = load_scorer(info.options)
    if scorer.fingerprint != info.card.fingerprint:
        raise ModelError(
            f"The model {info.options.model!r} has the fingerprint {scorer.fingerprint[:12]} here and "
            f"{info.card.fingerprint[:12]} where it was deployed from: their files differ. Copy them again, or name a "
            "hub id with a --revision."
        )
    if info.card.kind != "http":  # its endpoint may start later than this process, and be asked by many of them
        checks = self_test(scorer, info.card)
        failed = [f"{check.name}: {check.detail}" for check in checks if check.outcome == "failed"]
        if failed:
            raise ModelError(f"The model {info.options.model!r} failed its self-test. {' '.join(failed)}")
        for check in checks:
            if check.outcome == "warning":
                _log.warning("%s, self-test, %s: %s", info.name, check.name, check.detail)
    _log.info("%s: loaded and tested in %.1f s", info.name, time.perf_counter() - started)
    return scorer


class Replica:
    """Scores the requests of many at a time; lives on one event loop.

    Args:
        scorer: as `load_checked` gives it.
        queue_tokens: tokens that may wait.
        cache_bytes: memory for known scores; 0 keeps none.
        canary: whether `check` runs a pair; not for scorers that ask a server of their own.
    """

    def __init__(self, scorer: Scorer, *, queue_tokens: int, cache_bytes: int, canary: bool = True) -> None:
        self._batcher = Batcher(scorer.logits, call_tokens=_call_tokens(scorer), queue_tokens=queue_tokens)
        self._cache = ScoreCache(cache_bytes) if cache_bytes else None
        self._canary = scorer.encode([_CANARY[0]], [_CANARY[1]]).rows() if canary else None
        self._reported = (time.monotonic(), 0.0)

    async def score(self, pairs: EncodedPairs, deadline: float) -> Scored:
        """Score pairs; see `Backend.score`.

        Raises:
            RequestError: OVERLOADED, UNAVAILABLE, DEADLINE or INTERNAL.
        """
        logits, cached = await self._rows(pairs.rows(), deadline)
        best = best_of_chunks(logits, pairs)
        return Scored(best.logits, best.best, cached)

    async def check(self) -> None:
        """Run a pair through the model, past the queue.

        Raises:
            RankmillError: the model gave NaN or infinity.
            Exception: whatever else the forward pass failed with.
        """
        if self._canary is not None:
            await self._batcher.alone(self._canary)

    def load(self) -> tuple[float, float]:
        """How much there is to do.

        Returns:
            Seconds that the queue will take, and the share of the time since the last call of this method that was
            spent in forward passes (of those that have ended).
        """
        now, seconds = time.monotonic(), self._batcher.tally.seconds
        before, seconds_before = self._reported
        self._reported = now, seconds
        busy = min(1.0, (seconds - seconds_before) / max(now - before, 1e-3))
        speed = self._batcher.tokens_per_second
        return (self._batcher.queued_tokens / speed if speed else 0.0), busy

    def numbers(self) -> Numbers:
        """What it has done."""
        tally, cache = self._batcher.tally, self._cache
        return Numbers(
            calls=tally.calls,
            pairs=tally.pairs,
            tokens=tally.tokens,
            forward_seconds=tally.seconds,
            overloaded=tally.overloaded,
            expired=tally.expired,
            cancelled=tally.cancelled,
            failed=tally.failed,
            queued_tokens=self._batcher.queued_tokens,
            cache_hits=cache.hits if cache else 0,
            cache_misses=cache.misses if cache else 0,
            cache_entries=len(cache) if cache else 0,
        )

    async def close(self) -> None:
        """Finish what waits, take in nothing more."""
        await self._batcher.close()

    async def _rows(self, rows: EncodedPairs, deadline: float) -> tuple[NDArray[np.float32], int]:
        """Logits of pairs that are not in chunks, and how many of them were known."""
        if self._cache is None:
            return await self._batcher.score(rows, deadline), 0
        wanted = keys(rows)
        logits = self._cache.find(wanted)
        missing = np.flatnonzero(np.isnan(logits))
        if len(missing):
            logits[missing] = await self._batcher.score(take(rows, missing), deadline)
            self._cache.keep([wanted[i] for i in missing], logits[missing])
        return logits, len(rows) - len(missing)


def _call_tokens(scorer: Scorer) -> int:
    batch_tokens = getattr(scorer, "batch_tokens", None)
    return _TEXT_CALL_BYTES if batch_tokens is None else _CALL_BATCHES * int(batch_tokens)
