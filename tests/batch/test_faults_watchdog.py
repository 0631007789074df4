"""The watchdog, without Ray: what it ends, and what it leaves alone."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from rankmill.batch.watchdog import no_progress_after
from rankmill.errors import NoProgressError


def test_a_wait_for_a_lock_is_ended_with_the_evidence() -> None:
    lock = threading.Lock()
    before = signal.getsignal(signal.SIGUSR2)
    with (
        pytest.raises(NoProgressError) as failure,
        no_progress_after(0.3, lambda: "Look at this.", lambda: "Waiting for machines."),
        lock,
    ):
        lock.acquire()  # for ever
    assert "No shard was finished for 0.3 s" in str(failure.value)
    assert "Waiting for machines. Look at this. Finished shards are kept" in str(failure.value)
    assert signal.getsignal(signal.SIGUSR2) == before


def test_code_that_swallows_exceptions_is_ended_too() -> None:
    def stubborn() -> None:
        with no_progress_after(0.3, lambda: "", lambda: None):
            while True:
                with contextlib.suppress(Exception):
                    time.sleep(0.01)

    with pytest.raises(NoProgressError):
        stubborn()


def test_whoever_finishes_something_now_and_then_is_left_alone() -> None:
    with no_progress_after(2.0, lambda: "", lambda: None) as finished:
        for _ in range(30):
            time.sleep(0.1)
            finished()


def test_whoever_finishes_something_while_the_stacks_are_gathered_is_left_alone() -> None:
    gathered = threading.Semaphore(0)

    def evidence() -> str:
        finished()
        gathered.release()
        return ""

    with no_progress_after(0.2, evidence, lambda: None) as finished:
        for _ in range(2):  # and it is watched on
            assert gathered.acquire(timeout=60)


def test_whoever_is_done_while_the_stacks_are_gathered_is_left_alone() -> None:
    """The signal would end the process: what heeded it is gone."""
    asked, done = threading.Event(), threading.Event()

    def evidence() -> str:
        asked.set()
        done.wait(60)
        return ""

    with no_progress_after(0.2, evidence, lambda: None):
        assert asked.wait(60)
    assert signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL
    done.set()
    for thread in threading.enumerate():
        if thread.name == "watchdog":
            thread.join(60)


def test_zero_is_never() -> None:
    with no_progress_after(0, lambda: "", lambda: None):
        time.sleep(1.5)


_DEAF = """
import signal, sys
from rankmill.batch import watchdog
watchdog._UNWIND_SECONDS = 0.2
with watchdog.no_progress_after(0.2, lambda: "", lambda: None):
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])  # as deaf as a library that never returns
    while True:
        signal.sigwait([signal.SIGHUP])
"""


def test_a_main_thread_that_heeds_no_signal_does_not_keep_the_process() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", _DEAF], env=environment, stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert done.returncode == 6
    assert "No shard was finished" in done.stderr
