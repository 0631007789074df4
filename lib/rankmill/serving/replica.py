"""One scorer at work: loaded and tested, with its batcher and its cache. Knows nothing of Ray."""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from rankmill.errors import ModelError
from rankmill.scoring.card_scorer import CardScorer
from rankmill.scoring.chunks import best_of_chunks
from rankmill.scoring.embedding_scorer import EmbeddingScorer
from rankmill.scoring.load import load_scorer
from rankmill.scoring.pair_scorer import PairScorer
from rankmill.scoring.remote import Patience
from rankmill.scoring.scorer import Scorer
from rankmill.scoring.self_test import self_test
from rankmill.scoring.text_encoder import BYTES_PER_TOKEN
from rankmill.scoring.waste import padding_tokens
from rankmill.serving.backend import ModelInfo, Scored, Work
from rankmill.serving.batcher import Batcher
from rankmill.serving.cache import ScoreCache, keys
from rankmill.serving.models import refuse_other_files
from rankmill.serving.slices import take
from rankmill.types import EncodedPairs

_log = logging.getLogger("rankmill")

_GPU_CALL_BATCHES = 2
"""Micro-batches of the scorer per call, so that a GPU is not idle between them. On a CPU about one, where few requests
wait: newcomers wait for the call that is being made."""
_TEXT_CALL_TOKENS = 65_536 // BYTES_PER_TOKEN
"""Per call of a scorer that has no micro-batches: of texts, or of lists."""
_CHECK_SECONDS = 15.0
"""That a check waits for its turn before it looks at what is going on; half of what Ray Serve gives it."""
_PATIENCE = Patience(attempts=2, first_wait=0.2, longest_wait=1.0, connect_timeout=5.0, answer_timeout=30.0)
"""With an endpoint behind a model: nobody waits longer for an answer, and its trouble is the client's to wait out."""
_CANARY = ("what is the capital of France", "Paris is the capital and largest city of France.")


def load_checked(info: ModelInfo) -> Scorer:
    """Load a model's scorer, and make sure that it is the model that was deployed and that it works.

    Raises:
        ModelError: it cannot be used, has other files here, or failed its self-test.
        UsageError: its options do not fit this machine.
    """
    started = time.perf_counter()
    scorer = load_scorer(info.options, _PATIENCE)
    refuse_other_files(info, scorer.fingerprint, info.card.fingerprint)
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
        cache_bytes: memory for known scores; 0 keeps none, and neither does a scorer of lists.
        ids_per_token: of the model's card.
        canary: whether `check` runs a pair; not for scorers that ask a server of their own.
        thread: for the forward passes, of one thread; None for a new one.
    """

    def __init__(
        self,
        scorer: Scorer,
        *,
        queue_tokens: int,
        cache_bytes: int,
        ids_per_token: int = 1,
        canary: bool = True,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        self._batcher = Batcher(
            scorer.logits,
            call_tokens=_call_tokens(scorer),
            queue_tokens=queue_tokens,
            ids_per_token=ids_per_token,
            waste=lambda lengths: padding_tokens(scorer, lengths) or 0,
            thread=thread,
        )
        if isinstance(scorer, CardScorer):  # as all are that are loaded
            scorer.after_pass = self._batcher.after_pass
        # what a pair gets in one list is not what it gets in another
        self._cache = ScoreCache(cache_bytes) if cache_bytes and not scorer.listwise else None
        self._canary = scorer.encode([_CANARY[0]], [_CANARY[1]]).rows() if canary else None
        self._reported = (time.monotonic(), 0.0)
        self.check_seconds = _CHECK_SECONDS

    @classmethod
    def of(cls, info: ModelInfo, *, queue_tokens: int, cache_bytes: int) -> "Replica":
        """Load and test a model's scorer in the thread that will run it; see `load_checked`.

        OpenMP keeps a team of threads for every thread that has computed something: two teams get in each other's way,
        which doubled the time of a small forward pass.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="forward")
        try:
            scorer = thread.submit(load_checked, info).result()
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(
            scorer,
            queue_tokens=queue_tokens,
            cache_bytes=cache_bytes,
            ids_per_token=info.card.ids_per_token,
            canary=info.card.kind != "http",
            thread=thread,
        )

    async def score(self, pairs: EncodedPairs, deadline: float) -> Scored:
        """Score pairs; see `Backend.score`.

        Raises:
            RequestError: OVERLOADED, UNAVAILABLE, DEADLINE or INTERNAL.
        """
        logits, cached, work = await self._rows(pairs.rows(), deadline)
        best = best_of_chunks(logits, pairs)
        return Scored(best.logits, best.best, cached, work)

    @property
    def broken(self) -> bool:
        """Whether this process is of no use any more."""
        return self._batcher.broken

    async def check(self) -> None:
        """Run a pair through the model, past the queue.

        A call that cannot be interrupted, such as a long list, may keep it waiting; while its forward passes end one
        after the other, the model works.

        Raises:
            RankmillError: the model gave NaN or infinity.
            Exception: whatever else the forward pass failed with.
        """
        if self._canary is None:
            return
        checking = asyncio.ensure_future(self._batcher.alone(self._canary))
        try:
            done, _ = await asyncio.wait([checking], timeout=self.check_seconds)
            if done or self._batcher.seconds_since_pass > self.check_seconds:
                await checking
        finally:
            checking.cancel()

    def load(self) -> tuple[float, float]:
        """How much there is to do.

        Returns:
            Seconds that the queue will take, and the share of the time since the last call of this method that was
            spent in forward passes (of those that have ended).
        """
        now, seconds = time.monotonic(), self._batcher.work.seconds
        before, seconds_before = self._reported
        self._reported = now, seconds
        busy = min(1.0, (seconds - seconds_before) / max(now - before, 1e-3))
        speed = self._batcher.tokens_per_second
        return (self._batcher.queued_tokens / speed if speed else 0.0), busy

    async def close(self) -> None:
        """Finish what waits, take in nothing more."""
        await self._batcher.close()

    async def _rows(self, rows: EncodedPairs, deadline: float) -> tuple[NDArray[np.float32], int, Work]:
        """Logits of pairs that are not in chunks, how many of them were known, and what the others took."""
        if self._cache is None:
            found, work = await self._batcher.score(rows, deadline)
            return found, 0, work
        wanted = keys(rows)
        logits = self._cache.find(wanted)
        missing = np.flatnonzero(np.isnan(logits))
        work = Work()
        if len(missing):
            some = rows if len(missing) == len(rows) else take(rows, missing)
            logits[missing], work = await self._batcher.score(some, deadline)
            self._cache.keep([wanted[i] for i in missing], logits[missing])
        return logits, len(rows) - len(missing), work


def _call_tokens(scorer: Scorer) -> int:
    if not isinstance(scorer, PairScorer | EmbeddingScorer):
        return _TEXT_CALL_TOKENS
    return scorer.batch_tokens * (1 if scorer.engine.device == "cpu" else _GPU_CALL_BATCHES)
