"""The seam between `Store`, which knows what must hold, and the places bytes lie in, which know how to ask."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class DeniedError(Exception):
    """The store knows who asks and says no, or does not know them: permission, credentials."""


class ReplacedError(Exception):
    """What lies under the key is not the version that was asked for."""


class NoBucketError(Exception):
    """There is no such bucket."""


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of an object without its body."""

    size: int
    """Bytes."""
    etag: str
    """Changes whenever the content does; what `if_match` takes."""
    metadata: Mapping[str, str]
    """What `create` was given, names in lower case. Empty on local disks, which keep none."""


class Folder(Protocol):
    """A folder of objects. Keys are relative to it.

    Every method raises TransientError for trouble that may pass, DeniedError, NoBucketError or another OSError for
    trouble that will not.
    """

    def put_new(self, key: str, body: bytes, metadata: Mapping[str, str]) -> bool:
        """Write atomically unless something is there; never repeated below this call.

        False says that something is there, or is just being written: after a lost acknowledgement it may be ours.
        """

    def try_writing(self, key: str) -> None:
        """Find out whether anything can be written, leaving no trace; `key` is free to be used and deleted."""

    def get(self, key: str, if_match: str | None) -> bytes:
        """The whole body. FileNotFoundError: nothing there. ReplacedError: another version is."""

    def head(self, key: str) -> Head | None:
        """Size, version and metadata, or None when nothing is there."""

    def read_range(self, key: str, start: int, stop: int, if_match: str | None) -> bytes:
        """The bytes `start` to `stop` (exclusive). FileNotFoundError: nothing there. ReplacedError: another version."""

    def keys(self, prefix: str) -> list[str]:
        """Every key below the folder `prefix`."""

    def sizes(self) -> dict[str, int]:
        """Bytes of every object, by key."""

    def names(self) -> list[str]:
        """What lies directly in the folder; sub-folders end in a slash."""

    def delete(self, key: str) -> None:
        """Delete; nothing there is no error."""
