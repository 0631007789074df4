"""What runs in the child process of a `StageProcess`: construct the stage, then one table in, one answer out.

An answer is a pair: `result` and a table, `error` and an exception, or `unusable` and a sentence, after which the
process ends: a CUDA error leaves a process in which every later call fails too, so another must take over. Before it
come empty messages, signs of life, as often as the stage has finished something.
"""

import faulthandler
import fcntl
import os
import pickle
import select
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

from rankmill.batch import stacks
from rankmill.scoring.poison import poisons

UNUSABLE = 86
"""Exit code of a child that cannot go on after a CUDA error."""

PULSE_SECONDS = 0.5
"""Signs of life are no closer together than that: each wakes the parent, and a forward pass may take milliseconds."""


def main() -> None:
    """Serve the parent at the other end of the socket whose number is the first argument, until it closes."""
    _end_with_parent()
    connection = Connection(int(sys.argv[1]))
    faulthandler.enable()  # a segfault leaves its stack in the worker's log
    stage, arguments, folder = pickle.loads(connection.recv_bytes())  # noqa: S301 - from our own parent
    stacks.register(folder)
    work = _answer(connection, stage, *arguments, _Pulse(connection), construct=True)
    while work is not None:
        try:
            table = pickle.loads(connection.recv_bytes())  # noqa: S301 - from our own parent
        except EOFError:
            return
        _answer(connection, work, table)


class _Pulse:
    """Tells the parent that the stage is alive; the stage calls it whenever it has finished something."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._latest = time.monotonic()

    def __call__(self) -> None:
        now = time.monotonic()
        if now - self._latest >= PULSE_SECONDS:
            self._latest = now
            self._connection.send_bytes(b"")


def _answer(connection: Connection, function: Any, *arguments: Any, construct: bool = False) -> Any:
    """Call and send the outcome, but not a stage that was constructed; returns the result, None after an error."""
    try:
        result = function(*arguments)
        answer = ("result", None if construct else result)
    except Exception as error:  # noqa: BLE001 - raised again in the parent
        result = None
        answer = ("unusable", f"{type(error).__name__}: {error}") if poisons(error) else ("error", _sendable(error))
    connection.send_bytes(pickle.dumps(answer, protocol=5))
    if answer[0] == "unusable":
        os._exit(UNUSABLE)
    return result


def _sendable(error: Exception) -> Exception:
    """The error, or its text where it does not survive pickling; with the trace as a note."""
    note = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - foreign exceptions break in many ways
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.__cause__ = error.__context__ = None
    error.add_note(f"In the process of the model:\n{note}")
    return error


def _end_with_parent() -> None:
    """Have the kernel end this process as soon as the parent closes the pipe that is our standard input, or dies.

    Nothing is ever written to that pipe, so that its only event is its end, for which O_ASYNC brings SIGIO, which ends
    a process by default. No thread of ours need run for that: the model may hang in C and hold the interpreter's lock.
    PR_SET_PDEATHSIG would do it too soon: when the thread ends that started us, of a parent that lives.
    """
    pipe = sys.stdin.fileno()
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGIO})  # masks are inherited
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([pipe], [], [], 0)[0]:  # it was closed before we listened
        os._exit(0)
