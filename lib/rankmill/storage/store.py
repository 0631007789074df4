"""One folder of an object store or a local disk, with the one atomic primitive everything durable is built on.

`create` is put-if-absent: of any number of writers exactly one wins, a reader sees the whole body or nothing, and
nothing that was created is ever written again. On object stores that is a single PUT with `If-None-Match: *`, the one
conditional request that AWS, R2, MinIO and Ceph all answer alike; on local disks it is `link(2)`. Trouble that may pass
is waited out here and nowhere else. An acknowledgement that got lost is the normal case, not the exception: each
`create` carries a token of its own, by which it knows its object again when the repeated PUT finds it there.
"""

import hashlib
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from rankmill.errors import StorageError
from rankmill.settings.storage import StorageSettings
from rankmill.storage.backend import DeniedError, Folder, Head, NoBucketError, ReplacedError
from rankmill.storage.local import STAGING, LocalFolder
from rankmill.storage.objects import ObjectFolder
from rankmill.storage.retry import Patience, TransientError, patiently
from rankmill.storage.uris import refuse_unusable

__all__ = ["STAGING", "Head", "Store", "sha256"]

TOKEN = "rankmilltoken"  # noqa: S105 - the name of a metadata field
"""Metadata of every object: which call of `create` wrote it. Letters only, for Azure takes no hyphens."""

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://(.*)$", re.IGNORECASE)

T = TypeVar("T")


def sha256(body: bytes) -> str:
    """Hex digest, as manifests and receipts carry it."""
    return hashlib.sha256(body).hexdigest()


class Store:
    """A folder named by a local path or a URI (`s3://`, `gs://`, `az://`); picklable, opened on first use.

    Keys are relative to the folder, `/`-separated. Every method raises StorageError, naming the key, when the store
    refuses, or has trouble for longer than the patience.

    Args:
        uri: local path or URI, without credentials.
        storage: which endpoint, region and profile.
        patience: how long trouble is waited out; by default as `storage` says.

    Raises:
        UsageError: the URI names no place, or carries credentials.
    """

    def __init__(self, uri: str, storage: StorageSettings | None = None, patience: Patience | None = None) -> None:
        refuse_unusable(uri)
        self.uri = uri.rstrip("/") if _SCHEME.match(uri) else str(Path(uri).absolute())
        self.storage = storage or StorageSettings()
        self.patience = patience or Patience(seconds=self.storage.retry_seconds)

    def __reduce__(self) -> tuple[type["Store"], tuple[str, StorageSettings, Patience]]:
        return type(self), (self.uri, self.storage, self.patience)

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def with_patience(self, patience: Patience) -> "Store":
        """The same folder, with more or less patience."""
        return type(self)(self.uri, self.storage, patience)

    def join(self, key: str) -> str:
        """Full URI of a key."""
        return f"{self.uri}/{key}"

    def create(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> bool:
        """Write `body` under `key` unless something is there. Returns whether this call wrote it.

        Args:
            key: where.
            body: all of it.
            metadata: short strings to keep with the object; local disks keep none.
        """
        token = uuid.uuid4().hex
        fields = {**(metadata or {}), TOKEN: token}

        def attempt() -> bool:
            if self._folder.put_new(key, body, fields):
                return True
            return self._is_mine(key, token)

        return self._patiently("write", key, attempt)

    def try_writing(self, key: str) -> None:
        """Find out whether anything can be written into the folder; it is left as it was found.

        Args:
            key: what may be created on the way and is deleted again.
        """
        self._patiently("write", key, lambda: self._folder.try_writing(key))

    def read(self, key: str, if_match: str | None = None) -> bytes:
        """Return the body under `key`; StorageError when there is none.

        Args:
            key: what to read.
            if_match: the `etag` of the only version that will do; StorageError when it was replaced.
        """
        return self._patiently("read", key, lambda: self._folder.get(key, if_match))

    def read_if_present(self, key: str) -> bytes | None:
        """Return the body under `key`, or None when there is none."""

        def attempt() -> bytes | None:
            try:
                return self._folder.get(key, None)
            except FileNotFoundError:
                return None

        return self._patiently("read", key, attempt)

    def head(self, key: str) -> Head | None:
        """Size, version and metadata of what is under `key`, or None when nothing is."""
        return self._patiently("read", key, lambda: self._folder.head(key))

    def read_end(self, key: str, size: int, count: int) -> bytes:
        """Return the last bytes under `key`.

        Args:
            key: what to read.
            size: bytes under it.
            count: bytes wanted; all of them if there are fewer.
        """
        return self.read_range(key, max(0, size - count), size)

    def read_range(self, key: str, start: int, stop: int, if_match: str | None = None) -> bytes:
        """Return the bytes `start` to `stop` (exclusive) under `key`.

        Args:
            key: what to read.
            start: first byte.
            stop: byte after the last; at most the size.
            if_match: as in `read`.
        """
        if start >= stop:
            return b""  # stores refuse an empty range
        return self._patiently("read", key, lambda: self._folder.read_range(key, start, stop, if_match))

    def sizes(self) -> dict[str, int]:
        """Bytes of everything in the folder, by key."""
        return self._patiently("list", "", lambda: self._folder.sizes())  # noqa: PLW0108 - opened anew after a denial

    def keys(self, prefix: str) -> list[str]:
        """Every key under the folder `prefix`, sorted."""
        return self._patiently("list", prefix, lambda: sorted(self._folder.keys(prefix)))

    def top_level(self) -> list[str]:
        """Names directly in the folder, sub-folders with a trailing slash, sorted."""
        return self._patiently("list", "", lambda: sorted(self._folder.names()))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete `keys`; absent ones are no error."""
        for key in keys:
            self._patiently("delete", key, lambda key=key: self._folder.delete(key))  # type: ignore[misc]

    def _is_mine(self, key: str, token: str) -> bool:
        """Whether what is there was put there by the call with this token."""
        there = self._folder.head(key)
        if there is None:  # 409: two conditional PUTs met, and neither has won yet
            raise TransientError("another write of it was under way and came to nothing")
        return there.metadata.get(TOKEN) == token

    @cached_property
    def _folder(self) -> Folder:
        match = _SCHEME.match(self.uri)
        if match is None:
            return LocalFolder(Path(self.uri))
        scheme, rest = match[1].lower(), match[2]
        if scheme == "file":
            return LocalFolder(Path(rest))
        bucket, _, prefix = rest.partition("/")
        return ObjectFolder(scheme, bucket, prefix, self.storage, self.patience)

    def _patiently(self, verb: str, key: str, attempt: Callable[[], T]) -> T:
        try:
            try:
                return patiently(attempt, self.patience, place=self.uri)
            except DeniedError:
                self.__dict__.pop("_folder", None)  # short-lived keys may have run out: ask for new ones, once
                return patiently(attempt, self.patience, place=self.uri)
        except DeniedError as error:
            raise StorageError(f"No permission to {verb} {self.join(key)}: {error}") from error
        except PermissionError as error:
            raise StorageError(f"No permission to {verb} {self.join(key)}: {error}") from error
        except NoBucketError as error:
            raise StorageError(f"There is no such bucket: {self.uri}. Create it, or correct the URI.") from error
        except ReplacedError as error:
            raise StorageError(f"{self.join(key)} was replaced after it was looked at ({error}).") from error
        except FileNotFoundError as error:
            why = f"it cannot be made there ({error})" if verb == "write" else "there is nothing there"
            raise StorageError(f"Could not {verb} {self.join(key)}: {why}.") from error
        except TransientError as error:
            raise StorageError(
                f"Could not {verb} {self.join(key)}, though it was tried for {self.patience.seconds:g} s: {error}"
            ) from error
        except OSError as error:
            raise StorageError(f"Could not {verb} {self.join(key)}: {error}") from error
