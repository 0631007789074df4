"""What file systems and readers raise, as sentences of ours; for everything that is read or written through fsspec."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from rankmill.errors import DamagedInputError, InputError, StorageError, first_line

_STORES = {"botocore", "aiobotocore", "aiohttp", "gcsfs", "google", "azure"}
"""Packages whose errors share no base class with OSError."""


@contextmanager
def storage_errors(uri: str, *, writing: bool = False) -> Iterator[None]:  # noqa: C901 - a branch per kind of error
    """Turns what is raised while `uri` is listed, opened, read or written into sentences that begin with it.

    Raises:
        InputError: there is no such file, or it is a folder, or it was replaced while it was read.
        DamagedInputError: its content is not what it should be.
        StorageError: the file system refused or could not be reached, or credentials are missing.
    """
    try:
        yield
    except FileNotFoundError as error:
        what = "cannot be written: its folder does not exist" if writing else "does not exist"
        raise InputError(f"{uri} {what}.") from error
    except IsADirectoryError as error:
        raise InputError(f"{uri} is a folder; a file is needed here.") from error
    except PermissionError as error:
        raise StorageError(f"{uri}: no permission to {'write' if writing else 'read'} it ({error}).") from error
    except UnicodeDecodeError as error:
        raise DamagedInputError(
            f"{uri} is not UTF-8 text ({error.reason} at byte {error.start:,}). "
            "Parquet files and folders need names that end in .parquet or /."
        ) from error
    except (EOFError, zlib.error) as error:
        raise DamagedInputError(
            f"{uri} is damaged or cut short: its compressed data cannot be read ({error})."
        ) from error
    except gzip.BadGzipFile as error:
        raise DamagedInputError(f"{uri} is named like a gzip file but is none, or is damaged ({error}).") from error
    except pa.ArrowException as error:
        raise _unreadable(uri, error) from error
    except OSError as error:
        if error.errno is None:  # Arrow on bytes that are no Parquet; file systems give a number
            raise _unreadable(uri, error) from error
        if type(error).__name__ == "FileExpired":  # s3fs: another ETag than when it was opened
            raise InputError(
                f"The input changed while the job ran: {uri} was replaced while it was read. Put the old file back, or "
                "start a new job with another --output."
            ) from error
        raise StorageError(f"{uri} cannot be used: {error}") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] in _STORES:  # for example no credentials
            raise StorageError(f"{uri} cannot be used: {error}") from error
        raise


def _unreadable(uri: str, error: BaseException) -> DamagedInputError:
    return DamagedInputError(f"{uri} cannot be read: {first_line(error)}")
