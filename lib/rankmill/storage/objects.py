"""S3 and everything compatible, Google Cloud Storage and Azure, through obstore with its own retries turned off.

obstore was chosen over boto3 and s3fs for the commit path because it reports "already exists" as an exception of its
own on every store (s3fs raises a bare EINVAL on Ceph), because its one call means the same on GCS and Azure, and
because it repeats nothing when told so: botocore repeats a conditional PUT after a reset and then reports 412 for our
own object.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, S3Store

from rankmill.errors import StorageError, UsageError
from rankmill.settings.storage import StorageSettings
from rankmill.storage.backend import DeniedError, Head, NoBucketError, ReplacedError
from rankmill.storage.credentials import s3_options
from rankmill.storage.retry import Patience, TransientError

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([^<]*)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_REQUEST = re.compile(r"Error performing (\w+ [^\s?]+)")
_CAUSE = re.compile(r'(?:message|error): "([^"]+)"')  # of the operating system: refused, unknown host
_MAY_PASS = {408, 409, 425, 429}


class ObjectFolder:
    """Objects of a bucket below a prefix."""

    def __init__(self, scheme: str, bucket: str, prefix: str, storage: StorageSettings, patience: Patience) -> None:
        common: dict[str, Any] = {"prefix": prefix or None, "retry_config": {"max_retries": 0}}
        client: Any = {
            "connect_timeout": "5s",
            "read_timeout": f"{patience.request_seconds}s",
            "timeout": f"{patience.seconds}s",  # obstore's own 30 s would cut off large parts on slow lines
        }
        self._store: Any  # obstore's store classes share no public base class
        try:
            if scheme in {"s3", "s3a"}:
                options = s3_options(storage)
                client |= options.pop("client_options")
                self._store = S3Store(bucket, client_options=client, **common, **options)
            elif scheme in {"gs", "gcs"}:
                self._store = GCSStore(bucket, client_options=client, **common)
            elif scheme in {"az", "abfs", "abfss"}:
                self._store = AzureStore(bucket, client_options=client, **common)
            else:
                raise UsageError(f"{scheme}://{bucket}: use a local folder, s3://, gs:// or az://.")
        except (BaseError, ValueError) as error:  # nothing was asked for yet: it is the settings
            raise StorageError(f"{scheme}://{bucket} cannot be opened: {_summary(error)}") from error

    def put_new(self, key: str, body: bytes, metadata: Mapping[str, str]) -> bool:
        """One PUT with `If-None-Match: *`. Both 412 and 409 (another one is under way) give False."""
        with _translated():
            try:
                obstore.put(self._store, key, body, mode="create", use_multipart=False, attributes=dict(metadata))
            except AlreadyExistsError:
                return False
            return True

    def try_writing(self, key: str) -> None:
        """One PUT and one DELETE, which may fail: what stays is for `rankmill gc`, and nothing is written twice."""
        self.put_new(key, b"", {})
        with suppress(DeniedError, TransientError):
            self.delete(key)

    def get(self, key: str, if_match: str | None) -> bytes:
        """One GET; a body of another length than announced counts as trouble on the way."""
        with _translated():
            found = obstore.get(self._store, key, options={"if_match": if_match} if if_match else None)
            body = bytes(found.bytes())
        if len(body) != found.meta["size"]:
            raise TransientError(f"{len(body):,} of {found.meta['size']:,} bytes came")
        return body

    def head(self, key: str) -> Head | None:
        """One HEAD."""
        with _translated():
            try:
                found = obstore.get(self._store, key, options={"head": True})
            except FileNotFoundError:
                return None
            metadata = {str(name).lower(): str(value) for name, value in found.attributes.items()}
            return Head(found.meta["size"], found.meta["e_tag"] or "", metadata)

    def read_range(self, key: str, start: int, stop: int, if_match: str | None) -> bytes:
        """One GET of a range."""
        wanted: Any = {"range": (start, stop)} | ({"if_match": if_match} if if_match else {})
        with _translated():
            body = bytes(obstore.get(self._store, key, options=wanted).bytes())
        if len(body) != stop - start:
            raise TransientError(f"{len(body):,} of {stop - start:,} bytes came")
        return body

    def sizes(self) -> dict[str, int]:
        """List all pages."""
        with _translated():
            return {item["path"]: item["size"] for page in obstore.list(self._store) for item in page}

    def keys(self, prefix: str) -> list[str]:
        """List all pages."""
        with _translated():
            return [item["path"] for page in obstore.list(self._store, prefix) for item in page]

    def names(self) -> list[str]:
        """List with the delimiter `/`."""
        with _translated():
            found = obstore.list_with_delimiter(self._store)
        folders = [f"{name.rstrip('/')}/" for name in found["common_prefixes"]]
        return folders + [item["path"] for item in found["objects"]]

    def delete(self, key: str) -> None:
        """One request."""
        with _translated(), suppress(FileNotFoundError):
            obstore.delete(self._store, key)


@contextmanager
def _translated() -> Iterator[None]:
    """Sort obstore's errors into those that may pass and those that will not; statuses are only in their text."""
    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise DeniedError(_summary(error)) from error
    except PreconditionError as error:
        raise ReplacedError(_summary(error)) from error
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise NoBucketError(_summary(error)) from error
        raise
    except (InvalidPathError, NotSupportedError, ValueError) as error:  # ValueError: a key such as `a//b`
        raise OSError(_summary(error)) from error
    except BaseError as error:
        raise _sorted_out(error) from error


def _sorted_out(error: BaseError) -> Exception:
    text = str(error)
    if "code: AccessDenied" in text:  # a refusal to delete comes as a 200
        return DeniedError(_summary(error))
    if "redirect without LOCATION" in text:
        return OSError(
            "the bucket lies in another region than requests were signed for; name its region with --storage.region"
        )
    found = _STATUS.search(text)
    status = int(found[1]) if found else None
    if status is None or status >= 500 or status in _MAY_PASS:
        return TransientError(_summary(error))
    if "NoSuchBucket" in text:
        return NoBucketError(_summary(error))
    if status in {400, 401, 403}:  # an expired token is a 400, and a HEAD says no more than the number
        return DeniedError(_summary(error))
    return OSError(_summary(error))


def _summary(error: BaseException) -> str:
    """Status, code and message; not the whole answer, which repeats key ids and signatures."""
    text = str(error).partition("\n\nDebug source")[0]
    status, code, message = _STATUS.search(text), _CODE.search(text), _MESSAGE.search(text)
    if status is None:
        request, cause = _REQUEST.search(text), _CAUSE.search(str(error))
        if request and cause:
            return f"{request[1]}: {cause[1]}"[:300]
        return (text.splitlines() or [type(error).__name__])[0][:300]
    words = [status[1], code[1] if code else "", message[1] if message else ""]
    return " ".join(word for word in words if word)[:300]
