"""A stage in a process of its own: what ends it (a segfault, an exit, the OOM killer) or hangs in it ends nothing else.

Whoever started it sees how it died, starts another and decides what to do about the rows.
Ray cannot do that for us: it repeats what killed a worker for ever, or fails the job after so many deaths, a lost
machine's included. The price is a copy of each shard through a socket, some milliseconds for seconds of scoring.
"""

import json
import logging
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa

from rankmill.errors import ModelError

_log = logging.getLogger("rankmill")

_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[2]); from rankmill.batch import child; child.main()"
_STARTS = 3  # a process that dies while it loads its model is started again, for the machine may have been short
_REAP_SECONDS = 10.0


class StageDiedError(Exception):
    """The process of a stage died at work; the message says how."""


class StageHungError(StageDiedError):
    """The process of a stage was killed at work, for it gave no sign of life any more."""


class StageProcess:
    """Runs a stage in a child process, which is started when first needed and again after each death.

    The child cannot outlive its parent: it ends when the pipe to its standard input closes.

    Args:
        stage: what it runs, importable by name; called there once with `arguments`, its result once per table.
        arguments: picklable; one more goes with them, what to call as a sign of life.
        stacks: folder where the child writes its stacks when asked (`rankmill.batch.stacks`).
    """

    def __init__(
        self, stage: Callable[..., Callable[[pa.Table], pa.Table]], arguments: tuple[Any, ...], stacks: Path
    ) -> None:
        self._task = (stage, arguments, stacks)
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._longest_silence = 0.0

    @property
    def longest_silence(self) -> float:
        """Seconds at work without a sign of life, at most, of which it was not killed."""
        return self._longest_silence

    def start(self) -> None:
        """Start it and wait until the stage is constructed, unless it runs already.

        Raises:
            ModelError: the process died, time after time, before the stage was there.
            Exception: what the stage's constructor raised.
        """
        for attempt in range(_STARTS):
            if self._connection is not None:
                return
            time.sleep(attempt)
            try:
                self._launch()
                self._receive()
            except StageDiedError as death:
                _log.warning("%s while it loaded the model", death)
                last = death
            except BaseException:
                self.close()
                raise
        if self._connection is None:
            raise ModelError(
                f"The model cannot be loaded: {last}, {_STARTS} times in a row. Killed by SIGKILL means, most often, "
                "that the machine has too little memory for it."
            )

    def run(self, table: pa.Table, limit: float = 0.0) -> pa.Table:
        """Let the stage work on a table; `start` comes first.

        Args:
            table: the work.
            limit: seconds without a sign of life after which it is killed; 0 for never.

        Raises:
            StageDiedError: its process died of it.
            StageHungError: it was killed after `limit`.
            Exception: what the stage raised.
        """
        connection = self._connection
        if connection is None:
            raise StageDiedError("The process was not started")
        try:
            connection.send_bytes(pickle.dumps(table, protocol=5))
        except OSError as error:
            raise self._death() from error
        return self._receive(limit)

    def close(self) -> None:
        """End the process."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.kill()
            self._process.wait(_REAP_SECONDS)
            _close_pipe(self._process)
            self._process = None

    def _launch(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-c", _BOOT, str(theirs.fileno()), json.dumps(sys.path)]
        with theirs:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.PIPE)  # noqa: S603
        self._connection = Connection(ours.detach())
        try:
            self._connection.send_bytes(pickle.dumps(self._task, protocol=5))
        except OSError as error:
            raise self._death() from error

    def _receive(self, limit: float = 0.0) -> Any:
        try:
            answer = b""
            while not answer:  # signs of life are empty
                answer = self._hear(limit)
            outcome, value = pickle.loads(answer)  # noqa: S301 - from our own child
        except (EOFError, OSError) as error:
            raise self._death() from error
        if outcome == "unusable":
            raise self._death(f" after {value}")
        if outcome == "error":
            raise value
        return value

    def _hear(self, limit: float) -> bytes:
        """The next message; the process is killed if none comes in time, which needs no help of its own."""
        if self._connection is None or self._process is None:
            raise StageDiedError("The process was not started")
        if limit:
            started = time.monotonic()
            if not self._connection.poll(limit):
                self._process.kill()
                raise StageHungError(str(self._death(f" after {limit:.3g} s without a sign of life")))
            self._longest_silence = max(self._longest_silence, time.monotonic() - started)
        return self._connection.recv_bytes()

    def _death(self, cause: str = "") -> StageDiedError:
        """Reap the process and say how it died."""
        process, self._process = self._process, None
        connection, self._connection = self._connection, None
        if process is None:
            return StageDiedError("The process is gone")
        try:
            code = process.wait(_REAP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        _close_pipe(process)  # not before: a process that is ending by itself would end as if we had gone
        if connection is not None:
            connection.close()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return StageDiedError(f"The process of the model {how}{cause}")


def _close_pipe(process: "subprocess.Popen[bytes]") -> None:
    if process.stdin is not None:
        process.stdin.close()
