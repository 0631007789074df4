"""A disk with next to no room, for a test that fills it: a tmpfs in a namespace of its own, which needs no root."""

import mmap
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, pages: int) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A folder with little room, and what makes room in it: a disk that only a process of ours has, seen through it."""
    size = str(pages * mmap.PAGESIZE)
    script = (
        'mount -t tmpfs -o size="$2" none "$1" && echo there && read _ && '
        'mount -o remount,size=64m "$1" && echo there && read _'
    )
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(folder), size]
    folder.mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare (util-linux) here, which lends a disk of one's own")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        answers = holder.stdout
        assert answers is not None
        try:
            if not answers.readline():
                pytest.skip("no user namespaces here, in which anybody may mount a disk of their own")

            def make_room() -> None:
                print(file=holder.stdin, flush=True)
                assert answers.readline()

            yield Path(f"/proc/{holder.pid}/root{folder}"), make_room
        finally:
            holder.kill()
