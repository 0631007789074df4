"""Ends a run in which nothing is finished any more: a hang that nobody sees costs more than one that fails."""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from rankmill.errors import NoProgressError

_log = logging.getLogger("rankmill")

_SIGNAL = signal.SIGUSR2
"""What wakes the main thread, wherever it waits: a wait for a lock heeds signals alone."""

_REMARK_SECONDS = 60.0
_UNWIND_SECONDS = 60.0


class _StalledError(BaseException):
    """Passes through `except Exception` of whatever the main thread is in."""


@contextlib.contextmanager
def no_progress_after(
    seconds: float, evidence: Callable[[], str], remark: Callable[[], str | None]
) -> Iterator[Callable[[], None]]:
    """Raise NoProgressError in a `with` block in which nothing was finished for `seconds`.

    Works in the main thread; elsewhere, where no signal can be heeded, the block is left alone.

    Args:
        seconds: 0 for never.
        evidence: gathers and keeps what may explain it, shortly before the end; returns what to tell.
        remark: asked once a minute while nothing is finished; a sentence for the log on what is waited for, or None.

    Yields:
        What to call whenever something is finished.

    Raises:
        NoProgressError: with what `evidence` returned.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    watch = _Watch(seconds, evidence, remark)
    previous = signal.signal(_SIGNAL, watch.stop)
    thread = threading.Thread(target=watch.keep, name="watchdog", daemon=True)
    thread.start()
    try:
        try:
            yield watch.finished
        finally:
            watch.close()
    except _StalledError:
        watch.close()  # it may have come in the middle of the first attempt
        raise NoProgressError(watch.verdict) from None
    finally:
        signal.signal(_SIGNAL, previous)


class _Watch:
    """The state that the watching thread and the main thread share."""

    def __init__(self, seconds: float, evidence: Callable[[], str], remark: Callable[[], str | None]) -> None:
        self.verdict = ""
        self._over = threading.Event()
        self._ending = threading.Lock()
        """Held from the last look at `_over` to the signal: one that came later would meet somebody else's handler."""
        self._seconds = seconds
        self._evidence = evidence
        self._remark = remark
        self._latest = time.monotonic()

    def finished(self) -> None:
        self._latest = time.monotonic()

    def keep(self) -> None:
        remarked = self._latest
        while not self._over.wait(min(1.0, self._seconds / 4 or 1.0)):
            now = time.monotonic()
            if self._seconds and now - self._latest >= self._seconds:
                if self._end():
                    return
                continue
            if now - max(remarked, self._latest) >= _REMARK_SECONDS:
                remarked = now
                sentence = self._remark()
                if sentence is not None:
                    _log.info("%s", sentence)

    def close(self) -> None:
        """Send no signal from now on."""
        with self._ending:
            self._over.set()

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        """What the main thread does when it is woken."""
        if not self._over.is_set():
            raise _StalledError

    def _end(self) -> bool:
        """Wake the main thread; False if something was finished while the evidence was gathered."""
        since = self._latest
        waited_for = self._remark()
        told = self._evidence()
        self.verdict = (
            f"No shard was finished for {self._seconds:g} s (--no-progress-timeout; 0 waits for ever). "
            f"{waited_for + ' ' if waited_for else ''}{told} "
            "Finished shards are kept; run the same command to continue."
        )
        if self._latest != since:
            _log.info("a shard was finished while the stacks were gathered: the run goes on")
            return False
        with self._ending:
            if self._over.is_set():
                return True
            signal.pthread_kill(threading.main_thread().ident or 0, _SIGNAL)
        if not self._over.wait(_UNWIND_SECONDS):  # the main thread hangs in a library that heeds no signal
            sys.stderr.write(f"{self.verdict}\n")
            os._exit(NoProgressError.exit_code)
        return True
