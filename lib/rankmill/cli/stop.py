"""Ctrl-C, SIGTERM (`ray job stop`, a spot notice): leave by the same door, soon, and say how to go on."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
TERMINATED = 143

_GRACE_SECONDS = 9.0  # clouds give 30 s or two minutes, `docker stop` ten seconds
_log = logging.getLogger("rankmill")


class Terminated(KeyboardInterrupt):
    """SIGTERM came; like Ctrl-C, with the exit code of SIGTERM."""


def exit_code(stop: KeyboardInterrupt) -> int:
    """What shells expect of a process that a signal stopped."""
    return TERMINATED if isinstance(stop, Terminated) else INTERRUPTED


@contextmanager
def stoppable(output: str) -> Iterator[Callable[[], None]]:
    """Raise KeyboardInterrupt or Terminated in a `with` block when asked to stop.

    What is in the block then has nine seconds to leave, after which the process ends; a second signal ends it at once.
    Nothing is lost either way but the shards at work: what is finished was committed.

    Args:
        output: where the finished shards are.

    Yields:
        What to call again after something else, such as Ray, put handlers of its own in the place of these.
    """
    leaving: list[threading.Timer] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        stopped = Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
        if leaving:
            os._exit(exit_code(stopped))
        timer = threading.Timer(_GRACE_SECONDS, _give_up, [exit_code(stopped)])
        timer.daemon = True
        timer.start()
        leaving.append(timer)
        raise stopped

    def listen() -> None:
        for number in previous:
            signal.signal(number, stop)

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    listen()
    try:
        yield listen
    except KeyboardInterrupt:
        _log.warning("Stopped. Finished shards are kept in %s; run the same command to continue.", output)
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for timer in leaving:
            timer.cancel()


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Raise Terminated in a `with` block when SIGTERM comes, so that it ends as with Ctrl-C."""

    def interrupt(*_: object) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _give_up(code: int) -> None:
    sys.stderr.write(f"Some processes did not stop within {_GRACE_SECONDS:g} s; leaving them to end by themselves.\n")
    sys.stderr.flush()
    os._exit(code)
