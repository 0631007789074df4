"""Turns what the user typed (a file, a folder, a glob; local or any fsspec URI) into a list of input files."""

import glob
from dataclasses import dataclass
from typing import IO, Any, Literal

import fsspec
from fsspec import AbstractFileSystem

from rankmill.errors import InputError
from rankmill.tables.errors import storage_errors

Format = Literal["parquet", "jsonl"]
_SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson": "jsonl",
    ".ndjson.gz": "jsonl",
}


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of the input, pinned by size and version at plan time."""

    uri: str
    """Absolute local path or URI."""
    size: int
    """Bytes."""
    version: str
    """ETag where the store has one, else the modification time: changes when the content does."""

    @property
    def format(self) -> Format:
        """How the file is read, by its suffix."""
        found = format_of(self.uri)
        if found is None:
            raise ValueError(f"{self.uri} has no known suffix. This is a bug.")
        return found

    @property
    def compressed(self) -> bool:
        """Whether it can only be read from its first byte on."""
        return self.uri.lower().endswith(".gz")


def format_of(name: str) -> Format | None:
    """The format a file name's suffix stands for, or None."""
    lowered = name.lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if lowered.endswith(suffix)), None)


def find_files(pattern: str) -> tuple[InputFile, ...]:
    """List the files of candidates that `--input` names, as `list_files` does.

    Raises:
        InputError: nothing there, no file in it, or files that are neither Parquet nor JSONL, all named.
        StorageError: the store refused or could not be reached.
    """
    name = f"--input {pattern}"
    found = list_files(pattern, name)
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


def list_files(pattern: str, name: str | None = None) -> tuple[InputFile, ...]:
    """List the files that a path or URI names, sorted by URI: itself, those below a folder, or those a glob matches.

    A folder stands for all files below it except those whose path, below the folder, has a part that starts with `_`
    or `.` (markers and temporary files, skipped by every Parquet reader).

    Args:
        pattern: file, folder or glob; local or any fsspec URI.
        name: what errors call it, if not by itself.

    Raises:
        InputError: there is nothing there.
        StorageError: the store refused or could not be reached.
    """
    name = name or pattern
    try:
        system, path = fsspec.core.url_to_fs(pattern, use_listings_cache=False)
    except (ValueError, ImportError) as error:  # an unknown protocol, or its package is not installed
        raise InputError(f"{name} cannot be opened: {error}") from error
    with storage_errors(name):
        found = [
            info for info in _list(system, path) if not str(info["name"]).endswith("/")
        ]  # S3's console makes those
    return tuple(sorted((_pin(system, info) for info in found), key=lambda file: file.uri))


def open_input(uri: str) -> IO[bytes]:
    """Open an input file for reading; no read-ahead, because readers ask for exactly what they need."""
    system, path = fsspec.core.url_to_fs(uri, use_listings_cache=False)
    if _is_local(system):
        return open(path, "rb")  # noqa: PTH123 - the caller closes it
    handle: IO[bytes] = system.open(path, "rb", cache_type="none")
    return handle


def _list(system: AbstractFileSystem, path: str) -> list[dict[str, Any]]:
    if glob.has_magic(path) and not system.exists(path):
        matches = system.glob(path, detail=True)
        return [info for info in matches.values() if info["type"] == "file"]
    info = system.info(path)
    if info["type"] == "file":
        return [info]
    below = system.find(path, detail=True)
    base = path.rstrip("/") + "/"
    return [info for name, info in below.items() if not _is_hidden(str(name).removeprefix(base))]


def _is_hidden(relative: str) -> bool:
    return any(part.startswith(("_", ".")) for part in relative.split("/"))


def _pin(system: AbstractFileSystem, info: dict[str, Any]) -> InputFile:
    name = str(info["name"])
    uri = name if _is_local(system) else str(system.unstrip_protocol(name))
    version = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("LastModified") or ""
    return InputFile(uri=uri, size=int(info["size"] or 0), version=str(version).strip('"'))


def _is_local(system: AbstractFileSystem) -> bool:
    return "file" in (system.protocol if isinstance(system.protocol, tuple) else (system.protocol,))
