"""A file of an S3-compatible store, read in ranges of one version, with as few requests as its size allows.

fsspec lists inputs; their bytes come through the client of the commit path, which waits trouble out and takes
a fraction of s3fs's time per request. No request is spent on opening: size and version are known from the
listing, and every range is asked for with `If-Match`.
"""

import io
import os
from functools import lru_cache
from typing import Any

from rankmill.errors import InputError, StorageError
from rankmill.settings.storage import StorageSettings
from rankmill.storage.backend import ReplacedError
from rankmill.storage.store import Store

SCHEMES = ("s3://", "s3a://")

_WHOLE_BYTES = 256 << 10  # of a file that is read at once: so many take no longer than another request
_END_BYTES = 64 << 10  # most Parquet footers are smaller; Arrow asks for as many


def changed(uri: str, was: str, found: str) -> InputError:
    """The error for a file that is not the version it was."""
    return InputError(
        f"The input changed while the job ran: {uri} was replaced (version {was} when it was listed, {found} now). "
        "Put the old file back, or start a new job with another --output."
    )


class ObjectFile(io.RawIOBase):
    """A binary file, open for reading.

    Args:
        uri: `s3://BUCKET/KEY`.
        size: bytes.
        version: its ETag without quotes; empty for whatever version is there.
        storage: where the store is and who signs.

    Every read raises InputError when the file was replaced, FileNotFoundError when it is gone, and StorageError when
    the store refuses or has trouble for too long.
    """

    def __init__(self, uri: str, size: int, version: str, storage: StorageSettings) -> None:
        super().__init__()
        bucket, _, self._key = uri.partition("://")[2].partition("/")
        self._store = _bucket(bucket, storage, tuple(sorted(_aws_environment())))
        self._uri, self._size, self._version = uri, size, version
        self._at = 0
        self._kept, self._kept_from = b"", size  # the end of the file, once something of it was wanted

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Choose where the next read begins; asks for nothing."""
        self._at = max(0, offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence])
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        """The next `size` bytes, all that are left for -1; fewer only at the end."""
        wanted = self._size if size is None or size < 0 else self._at + size
        start, stop = self._at, min(wanted, self._size)
        if start >= stop:
            return b""
        self._at = stop
        end = 0 if self._size <= _WHOLE_BYTES else self._size - _END_BYTES
        if not self._kept and start >= end:
            self._kept, self._kept_from = self._fetch(end, self._size), end
        if start >= self._kept_from:
            return self._kept[start - self._kept_from : stop - self._kept_from]
        return self._fetch(start, stop)

    def readall(self) -> bytes:
        """All that is left."""
        return self.read()

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer."""
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def _fetch(self, start: int, stop: int) -> bytes:
        try:
            return self._store.read_range(self._key, start, stop, f'"{self._version}"' if self._version else None)
        except StorageError as error:
            if isinstance(error.__cause__, ReplacedError):
                raise changed(self._uri, self._version, "another") from error
            if isinstance(error.__cause__, FileNotFoundError):
                raise error.__cause__ from None
            raise


def _aws_environment() -> list[tuple[str, str]]:
    return [item for item in os.environ.items() if item[0].startswith("AWS_")]


@lru_cache(maxsize=16)
def _bucket(bucket: str, storage: StorageSettings, environment: tuple[tuple[str, str], ...]) -> Store:  # noqa: ARG001 - what the answer depends on
    """A client for all files of a bucket: making one costs more than a request.

    Args:
        bucket: its name.
        storage: where it is and who signs.
        environment: the variables that say what `storage` does not.
    """
    return Store(f"s3://{bucket}", storage)
