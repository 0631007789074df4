"""A folder of one run on the local disk of each machine that takes part: what is known of processes that died there.

A machine that is lost takes its folder with it, and that is the point: what is found in it tells the death of a process
from the loss of its machine without asking anybody.
"""

import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rankmill.batch.stage_process import StageDiedError


@dataclass(frozen=True, slots=True)
class Scratch:
    """The folder, by the name of the run; the same on every machine."""

    run: str

    @property
    def folder(self) -> Path:
        """Where it is on this machine; made when first used."""
        return Path(tempfile.gettempdir()) / f"rankmill-{self.run}"

    @property
    def stacks(self) -> Path:
        """Where the processes of this machine write their stacks when asked."""
        return self.folder / "stacks"

    def deaths(self, piece: str) -> int:
        """How many processes of this machine died at work on a piece."""
        return len(list((self.folder / "attempts").glob(f"{piece}.*")))

    @contextlib.contextmanager
    def attempt(self, piece: str) -> Iterator[None]:
        """Mark that a piece is at work for the length of a `with` block; the mark of a process that dies in it stays.

        The death of a stage's own process (StageDiedError) leaves the mark as well; every other way out takes it away.
        """
        mark = self.folder / "attempts" / f"{piece}.{uuid.uuid4().hex}"
        mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark.touch()
        try:
            yield
        except StageDiedError:
            raise
        except BaseException:
            mark.unlink(missing_ok=True)
            raise
        mark.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete it on the machine that is asked."""
        shutil.rmtree(self.folder, ignore_errors=True)
