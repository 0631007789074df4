"""Turns what the user typed (a file, a folder, a glob; local or any fsspec URI) into a list of input files."""

import glob
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, cast

import fsspec
from fsspec import AbstractFileSystem

from rankmill.errors import InputError, first_line
from rankmill.settings.storage import StorageSettings
from rankmill.storage.uris import refuse_unusable
from rankmill.tables.errors import storage_errors
from rankmill.tables.object_file import SCHEMES, ObjectFile, changed

Format = Literal["parquet", "jsonl", "trec"]
_SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson": "jsonl",
    ".ndjson.gz": "jsonl",
}

_ENVIRONMENT = StorageSettings()
"""What the process's own environment says."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of the input, pinned by size and version at plan time."""

    uri: str
    """Absolute local path or URI."""
    size: int
    """Bytes."""
    version: str
    """ETag where the store has one, else the modification time: changes when the content does."""
    storage: StorageSettings = _ENVIRONMENT
    """Where the store is and who signs; it goes with the file to every worker."""
    problem: str = field(default="", compare=False)
    """Why nothing of it is read, where --bad-files reject lets the others go on; else empty."""

    @property
    def format(self) -> Format:
        """How the file is read, by its suffix; what has none that is known is a run in TREC's format."""
        return format_of(self.uri) or "trec"

    @property
    def compressed(self) -> bool:
        """Whether it can only be read from its first byte on."""
        return self.uri.lower().endswith(".gz")


def format_of(name: str) -> Format | None:
    """The format a file name's suffix stands for, or None."""
    lowered = name.lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if lowered.endswith(suffix)), None)


def find_files(pattern: str, storage: StorageSettings = _ENVIRONMENT) -> tuple[InputFile, ...]:
    """List the files of candidates that `--input` names, as `list_files` does.

    Raises:
        InputError: nothing there, no file in it, or files that are neither Parquet nor JSONL, all named.
        StorageError: the store refused or could not be reached.
    """
    name = f"--input {pattern}"
    found = list_files(pattern, name, storage)
    if not found:
        raise InputError(f"{name}: no files there.")
    unknown = [file.uri for file in found if format_of(file.uri) is None]
    if unknown:
        raise InputError(
            f"{name}: {len(unknown)} of {len(found)} files are neither Parquet nor JSONL "
            f"({', '.join(_SUFFIXES)}); name the others with a glob such as FOLDER/*.parquet.",
            unknown[:20],
        )
    return found


def list_files(pattern: str, name: str | None = None, storage: StorageSettings = _ENVIRONMENT) -> tuple[InputFile, ...]:
    """List the files that a path or URI names, sorted by URI: itself, those below a folder, or those a glob matches.

    A folder stands for all files below it except those whose path, below the folder, has a part that starts with `_`
    or `.` (markers and temporary files, skipped by every Parquet reader).

    Args:
        pattern: file, folder or glob; local or any fsspec URI.
        name: what errors call it, if not by itself.
        storage: where an object store is and who signs.

    Raises:
        InputError: there is nothing there.
        StorageError: the store refused or could not be reached.
        UsageError: the URI names no place, or carries credentials.
    """
    refuse_unusable(pattern, name)
    name = name or pattern
    try:
        system, path = _file_system(pattern, storage)
    except (ValueError, ImportError, OSError) as error:  # an unknown protocol, or what it needs is not installed
        raise InputError(f"{name} cannot be opened: {first_line(error)}") from error
    with storage_errors(name):
        found = [
            info for info in _list(system, path) if not str(info["name"]).endswith("/")
        ]  # S3's console makes those
    return tuple(sorted((_pin(system, info, storage) for info in found), key=lambda file: file.uri))


def absolute(pattern: str) -> str:
    """The same file, folder or glob, named so that it means the same in every working directory."""
    return pattern if "://" in pattern else str(Path(pattern).absolute())


def open_file(file: InputFile) -> IO[bytes]:
    """Open a file of the input as it was when it was listed.

    What is read through the handle is of one version: S3 gets its ETag with every request, local files have an inode.

    Raises:
        InputError: it was replaced meanwhile; from S3, when something is read.
    """
    if file.uri.lower().startswith(SCHEMES):
        return cast("IO[bytes]", ObjectFile(file.uri, file.size, file.version, file.storage))
    handle = open_input(file.uri, file.storage)
    details = getattr(handle, "details", None)
    found = _version(details if isinstance(details, Mapping) else {"mtime": os.fstat(handle.fileno()).st_mtime})
    try:
        _refuse_version(file, found)
    except InputError:
        handle.close()
        raise
    return handle


def refuse_replaced(file: InputFile) -> None:
    """Look whether a file is still what it was when it was listed; what was read of it before is of that version.

    S3 is not asked, for it refuses every read of another version. A local file may be written over where it lies.

    Raises:
        InputError: it was replaced, or is gone.
        StorageError: the store refused or could not be reached.
    """
    system, path = _file_system(file.uri, file.storage)
    if "s3" in system.protocol:
        return
    with storage_errors(file.uri):
        _refuse_version(file, _version(system.info(path)))


def _refuse_version(file: InputFile, found: str) -> None:
    if file.version and found and found != file.version:
        raise changed(file.uri, file.version, found)


def open_input(uri: str, storage: StorageSettings = _ENVIRONMENT) -> IO[bytes]:
    """Open an input file for reading; no read-ahead, because readers ask for exactly what they need."""
    system, path = _file_system(uri, storage)
    if _is_local(system):
        return open(path, "rb")  # noqa: PTH123 - the caller closes it
    handle: IO[bytes] = system.open(path, "rb", cache_type="none")
    return handle


def fsspec_options(uri: str, storage: StorageSettings) -> dict[str, Any]:
    """What fsspec has to be told to find the store of a URI; what is not told, the environment says."""
    if not uri.lower().startswith(("s3://", "s3a://")):
        return {}
    options: dict[str, Any] = {"endpoint_url": storage.endpoint, "profile": storage.profile}
    if storage.region is not None:
        options["client_kwargs"] = {"region_name": storage.region}
    return {name: value for name, value in options.items() if value is not None}


def _list(system: AbstractFileSystem, path: str) -> list[dict[str, Any]]:
    if glob.has_magic(path) and not system.exists(path):
        matches = system.glob(path, detail=True)
        return [info for info in matches.values() if info["type"] == "file"]
    info = system.info(path)
    if info["type"] == "file":
        return [info]
    below = system.find(path, detail=True)
    base = path.rstrip("/") + "/"
    return [info for name, info in below.items() if not is_hidden(str(name).removeprefix(base))]


def is_hidden(relative: str) -> bool:
    """Whether a file is passed over, by its path below the folder that was named."""
    return any(part.startswith(("_", ".")) for part in relative.split("/"))


def _pin(system: AbstractFileSystem, info: dict[str, Any], storage: StorageSettings) -> InputFile:
    name = str(info["name"])
    uri = name if _is_local(system) else str(system.unstrip_protocol(name))
    return InputFile(uri=uri, size=int(info["size"] or 0), version=_version(info), storage=storage)


def _version(info: Mapping[str, Any]) -> str:
    version = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("LastModified") or ""
    return str(version).strip('"')


def _file_system(uri: str, storage: StorageSettings) -> tuple[AbstractFileSystem, str]:
    """The file system of a URI and the path in it; listings are never remembered."""
    system, path = fsspec.core.url_to_fs(uri, use_listings_cache=False, **fsspec_options(uri, storage))
    return system, path


def _is_local(system: AbstractFileSystem) -> bool:
    return "file" in (system.protocol if isinstance(system.protocol, tuple) else (system.protocol,))
