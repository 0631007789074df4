"""Memory of a process and all that it started, theirs included: what a machine has to have for it (Linux)."""

import os
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_EVERY_SECONDS = 0.25


class Peak:
    """The largest sum that was seen."""

    def __init__(self) -> None:
        self.bytes = 0


@contextmanager
def watched(root: int | None = None) -> Iterator[Peak]:
    """Look at a process tree for the length of a `with` block.

    Memory that several processes share is counted once: each has its share of it (PSS).

    Args:
        root: process id; None is this one.
    """
    peak, done = Peak(), threading.Event()

    def look() -> None:
        while not done.wait(_EVERY_SECONDS):
            peak.bytes = max(peak.bytes, tree_bytes(root or os.getpid()))

    thread = threading.Thread(target=look, name="memory of the process tree", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def tree_bytes(root: int) -> int:
    """Resident memory of a process and all its descendants, in bytes."""
    children: dict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):  # it may end while we look
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            children[parent].append(int(folder.name))
    total, waiting = 0, [root]
    while waiting:
        process = waiting.pop()
        waiting += children[process]
        total += _proportional_bytes(process)
    return total


def _proportional_bytes(process: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0
