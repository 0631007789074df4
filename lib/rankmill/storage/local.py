"""A local folder with the semantics of an object store: whole files or none, the first writer wins, and it is durable.

Atomicity is `link(2)` of a finished, synced file, which refuses to replace what is there. The file is staged in a
folder that readers skip, because a killed writer leaves half of it.
"""

import os
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from rankmill.storage.backend import Head, ReplacedError

STAGING = "_rankmill/staging"
"""Where files are written before they are linked into place; killed writers leave some behind."""


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """Files below `root`."""

    root: Path

    def put_new(self, key: str, body: bytes, metadata: Mapping[str, str]) -> bool:  # noqa: ARG002 - files keep none
        """Write, sync and link; the directory is synced too, or a power cut could forget the name."""
        target, staged = self.root / key, self.root / STAGING / uuid.uuid4().hex
        _make_folder(target.parent)
        _make_folder(staged.parent)
        try:
            with staged.open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(staged, target)
            except FileExistsError:
                # NFS repeats a link whose answer was lost and then reports its own: the inode says whose it is.
                return target.samefile(staged)
            _sync(target.parent)
            return True
        finally:
            staged.unlink(missing_ok=True)

    def try_writing(self, key: str) -> None:  # noqa: ARG002 - a key would leave the folders above it behind
        """Make a folder in as much of the path as there is, and take it away."""
        there = next(folder for folder in (self.root, *self.root.parents) if folder.exists())
        Path(tempfile.mkdtemp(prefix=".rankmill-", dir=there)).rmdir()

    def get(self, key: str, if_match: str | None) -> bytes:
        """Read a file; the version is that of the very file that is read."""
        with (self.root / key).open("rb") as file:
            _refuse_other(file, if_match)
            return file.read()

    def head(self, key: str) -> Head | None:
        """Size and a version made of inode, time and size."""
        try:
            found = (self.root / key).stat()
        except FileNotFoundError:
            return None
        return Head(found.st_size, _etag(found), {})

    def read_range(self, key: str, start: int, stop: int, if_match: str | None) -> bytes:
        """Seek and read."""
        with (self.root / key).open("rb") as file:
            _refuse_other(file, if_match)
            file.seek(start)
            return file.read(stop - start)

    def sizes(self) -> dict[str, int]:
        """Walk the folder; files that are deleted meanwhile are left out."""
        found = ((key, self.head(key)) for key in self.keys(""))
        return {key: head.size for key, head in found if head is not None}

    def keys(self, prefix: str) -> list[str]:
        """Walk the folder; one that does not exist, or that is deleted meanwhile, is empty."""
        return [
            (Path(folder) / name).relative_to(self.root).as_posix()
            for folder, _, names in os.walk(self.root / prefix, onerror=_unless_gone)
            for name in names
        ]

    def names(self) -> list[str]:
        """List the folder; one that does not exist is empty."""
        try:
            return [f"{path.name}/" if path.is_dir() else path.name for path in self.root.iterdir()]
        except FileNotFoundError:
            return []

    def delete(self, key: str) -> None:
        """Unlink a file."""
        (self.root / key).unlink(missing_ok=True)


def _unless_gone(error: OSError) -> None:
    """What cannot be listed is not empty: whoever believed that would do finished work again."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _refuse_other(file: IO[bytes], if_match: str | None) -> None:
    found = _etag(os.fstat(file.fileno()))
    if if_match is not None and found != if_match:
        raise ReplacedError(f"its version is {found}, not {if_match}")


def _etag(found: os.stat_result) -> str:
    return f"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each name synced."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
