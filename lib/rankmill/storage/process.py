"""Which process this is, and whether another one of this machine has ended."""

import hashlib
import os
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    """A process, told from all others on all machines."""

    host: str
    """For people."""
    pid: int
    machine: str
    """Digest of the boot and the PID namespace; empty where neither can be known (not Linux)."""
    started: str
    """Clock tick since the boot at which it started, because PIDs are used again."""


@lru_cache(maxsize=1)
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return ""
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:16]


def this_process() -> Process:
    """The process that asks."""
    pid = os.getpid()
    return Process(socket.gethostname(), pid, _machine(), _started(pid) or "")


def has_ended(process: Process) -> bool:
    """Whether a process has surely ended; False where that cannot be known, as for other machines and containers."""
    if not process.machine or process.machine != _machine():
        return False
    return _started(process.pid) != process.started


def _started(pid: int) -> str | None:
    """Start time of a process that lives, else None."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in {"Z", "X"} else rest[18]  # a zombie is dead; its parent has not asked yet
