"""One folder of an object store or a local disk, with the one atomic primitive everything durable is built on.

`create` is put-if-absent: of any number of writers exactly one wins, and a reader sees the whole body or nothing. On
object stores that is `If-None-Match: *`, which obstore speaks: it was chosen over boto3 and s3fs because it reports
"already exists" as an exception of its own on every store (s3fs raises a bare EINVAL on Ceph), never repeats a
conditional PUT blindly after a reset, and retries truncated bodies. On local disks it is `link(2)` of a finished file,
staged in a folder that readers skip; obstore would stage it beside the parts, where a killed writer leaves half of it.
"""

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

from rankmill.errors import StorageError, UsageError
from rankmill.storage.credentials import s3_options

STAGING = "_rankmill/staging"
"""Where files of a local folder are written before they are linked into place; killed writers leave some behind."""

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://(.*)$", re.IGNORECASE)


class Store:
    """A folder named by a local path or a URI (`s3://`, `gs://`, `az://`); picklable, opened on first use.

    Keys are relative to the folder, `/`-separated. Every method raises StorageError, naming the folder, when the store
    refuses or cannot be reached.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/") if _SCHEME.match(uri) else str(Path(uri).absolute())

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        return Store, (self.uri,)

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def join(self, key: str) -> str:
        """Full URI of a key."""
        return f"{self.uri}/{key}"

    def create(self, key: str, body: bytes) -> bool:
        """Write `body` under `key` unless something is there. Returns whether this call wrote it."""
        with self._explained("write", key):
            if isinstance(self._folder, LocalStore):
                return _link(Path(self._folder.prefix or "/"), key, body)
            try:
                obstore.put(self._folder, key, body, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

    def read(self, key: str) -> bytes:
        """Return the body under `key`; StorageError when there is none."""
        with self._explained("read", key):
            return bytes(obstore.get(self._folder, key).bytes())

    def read_if_present(self, key: str) -> bytes | None:
        """Return the body under `key`, or None when there is none."""
        with self._explained("read", key):
            try:
                return bytes(obstore.get(self._folder, key).bytes())
            except FileNotFoundError:
                return None

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield every key under the folder `prefix`, in no particular order."""
        with self._explained("list", prefix):
            for page in obstore.list(self._folder, prefix):
                for item in page:
                    yield item["path"]

    def top_level(self) -> list[str]:
        """Names directly in the folder, sub-folders with a trailing slash, sorted."""
        with self._explained("list", ""):
            listing = obstore.list_with_delimiter(self._folder)
            folders = [f"{name.rstrip('/')}/" for name in listing["common_prefixes"]]
            return sorted(folders + [item["path"] for item in listing["objects"]])

    def delete(self, keys: list[str]) -> None:
        """Delete `keys`; absent ones are no error."""
        with self._explained("delete", keys[0] if keys else ""):
            for key in keys:
                try:
                    obstore.delete(self._folder, key)
                except FileNotFoundError:
                    continue

    @cached_property
    def _folder(self) -> Any:  # obstore's store classes share no public base class
        match = _SCHEME.match(self.uri)
        if match is None:
            return LocalStore(self.uri, mkdir=True)
        scheme, rest = match[1].lower(), match[2]
        bucket, _, prefix = rest.partition("/")
        if scheme == "file":
            return LocalStore(rest, mkdir=True)
        if not bucket:
            raise UsageError(f"{self.uri} names no bucket; write {scheme}://BUCKET/FOLDER.")
        if scheme in {"s3", "s3a"}:
            return S3Store(bucket, prefix=prefix or None, **s3_options())
        if scheme in {"gs", "gcs"}:
            return GCSStore(bucket, prefix=prefix or None)
        if scheme in {"az", "abfs", "abfss"}:
            return AzureStore(bucket, prefix=prefix or None)
        raise UsageError(f"{self.uri}: cannot write to {scheme}://; use a local folder, s3://, gs:// or az://.")

    @contextmanager
    def _explained(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
            raise StorageError(f"No permission to {verb} {self.join(key)}: {_first_line(error)}") from error
        except (BaseError, OSError) as error:
            if "NoSuchBucket" in str(error):
                raise StorageError(f"There is no such bucket: {self.uri}. Create it, or correct the URI.") from error
            raise StorageError(f"Could not {verb} {self.join(key)}: {_first_line(error)}") from error


def _link(folder: Path, key: str, body: bytes) -> bool:
    """Create a local file unless there is one: `link(2)` refuses to replace what is there."""
    target, staged = folder / key, folder / STAGING / uuid.uuid4().hex
    target.parent.mkdir(parents=True, exist_ok=True)
    staged.parent.mkdir(parents=True, exist_ok=True)
    try:
        staged.write_bytes(body)
        os.link(staged, target)
    except FileExistsError:
        return False
    finally:
        staged.unlink(missing_ok=True)
    return True


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:500]
