"""Where every process of a run is when nothing moves: each can be asked for its stacks by a signal.

faulthandler answers in C, without the interpreter's lock: also for a process that hangs inside a library.
"""

import faulthandler
import fcntl
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

_ANSWER_SECONDS = 1.0
_registered: dict[Path, int] = {}  # descriptors, open for good: faulthandler writes to them, their locks say who lives


def register(folder: Path) -> None:
    """Make this process write its stacks into `folder` whenever `collect` asks."""
    file = folder / f"{os.getpid()}.txt"
    if file in _registered:
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    faulthandler.register(signal.SIGUSR1, descriptor, all_threads=True)
    _registered[file] = descriptor


def collect(folder: Path) -> str:
    """Ask every process of this machine that has registered in `folder` and still lives; returns what they said."""
    asked = [file for file in sorted(folder.glob("*.txt")) if _ask(file)]
    time.sleep(_ANSWER_SECONDS)
    return "\n".join(f"Process {file.stem} ({_command(file.stem)}):\n{file.read_text('utf-8')}" for file in asked)


def own() -> str:
    """The stacks of this process."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"Thread {names.get(number, number)}:\n{''.join(traceback.format_stack(frame))}"
        for number, frame in sys._current_frames().items()  # noqa: SLF001 - documented, for exactly this
    )


def _ask(file: Path) -> bool:
    """Send the signal, if the process that registered still holds its file: its number may belong to another by now."""
    with file.open("a", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.kill(int(file.stem), signal.SIGUSR1)
            return True
    return False


def _command(process: str) -> str:
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "gone"
    return b" ".join(words)[:200].decode(errors="replace")
