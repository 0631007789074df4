"""Reads the lines of text files, compressed or not, and never holds one that is too long to be meant.

A gigabyte of blanks packs into a megabyte, and a file that lost its line ends is one line. So a line has a limit, and
what goes beyond is counted while it is read past, not kept.
"""

import gzip
import io
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from rankmill.errors import InputError
from rankmill.tables.errors import storage_errors
from rankmill.tables.locate import InputFile, open_file

LINE_BYTES = 64 << 20
"""Bytes that a line may have, its end included, unless the texts in it may be longer than usual."""

_TEXTS = 4  # of the greatest length that fit into a line
_CHUNK_LINES = 1000
_CHUNK_BYTES = 8 << 20  # a line of nested input may be large
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class TooLong:
    """Stands for a line beyond the limit, of which nothing was kept."""

    size: int
    """Bytes."""
    limit: int

    def __len__(self) -> int:
        return 0  # what is held of it

    def __str__(self) -> str:
        return (
            f"the line has {self.size:,} bytes, and {self.limit:,} are allowed (64 MiB, or {_TEXTS} times "
            "--max-text-bytes where that is more)"
        )

    def refused(self, uri: str, number: str) -> InputError:
        """The error for a file in which no line may be so long, whatever --max-text-bytes says.

        Args:
            uri: of the file.
            number: of the line, in words: from 1, and how it was counted.
        """
        return InputError(f"{uri}, line {number}: the line has {self.size:,} bytes, and {self.limit:,} are allowed.")


Line = tuple[int, int, bytes]
"""Number without blank lines, byte offset, text."""

AnyLine = tuple[int, int, bytes | TooLong]
"""The same, of a file that is read on behind a line that is too long."""

_L = TypeVar("_L", Line, AnyLine)


def line_limit(max_text_bytes: int) -> int:
    """Bytes that a line may have where each text in it may have `max_text_bytes`."""
    return max(LINE_BYTES, _TEXTS * max_text_bytes)


def read_lines(file: InputFile, start: int, offset: int, stop: int | None = None) -> Generator[Line]:
    """Yield the lines of a text file from line `start` (at byte `offset`) to `stop` (exclusive), but for blank ones.

    Raises:
        InputError: a line has more than `LINE_BYTES`.
        InputError, StorageError: as `storage_errors` says.
    """
    with closing(read_any_lines(file, start, offset, stop)) as lines:
        for number, position, line in lines:
            if isinstance(line, TooLong):
                raise line.refused(file.uri, f"{number + 1:,} (without blank ones)")
            yield number, position, line


def read_any_lines(
    file: InputFile, start: int, offset: int, stop: int | None = None, limit: int = LINE_BYTES
) -> Generator[AnyLine]:
    """The same; a line of more than `limit` bytes comes as `TooLong`, and those behind it are read on.

    Raises:
        InputError, StorageError: as `storage_errors` says.
    """
    number, position = start, offset
    with storage_errors(file.uri), ExitStack() as stack:
        raw: Any = stack.enter_context(open_file(file))
        stream = stack.enter_context(io.BufferedReader(raw, _BUFFER_BYTES))
        if file.compressed:  # gzip asks for 8 kB at a time, and a store answers every request after a while
            unpacked: Any = stack.enter_context(gzip.GzipFile(fileobj=stream))
            stream = stack.enter_context(io.BufferedReader(unpacked, _BUFFER_BYTES))
        stream.seek(offset)
        for line in iter(partial(stream.readline, limit + 1), b""):
            size = len(line) if len(line) <= limit else len(line) + _skip_rest(stream, line)
            if size > limit or line.strip():
                if number == stop:
                    return
                yield number, position, line if size <= limit else TooLong(size, limit)
                number += 1
            position += size


def in_chunks(lines: Iterable[_L]) -> Iterator[list[_L]]:
    """The lines, a thousand at a time; fewer where they are more than 8 MiB."""
    chunk: list[_L] = []
    size = 0
    for line in lines:
        chunk.append(line)
        size += len(line[2])
        if len(chunk) == _CHUNK_LINES or size >= _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _skip_rest(stream: io.BufferedReader, line: bytes) -> int:
    """Read past what is left of a line; returns its bytes."""
    size = 0
    while line and not line.endswith(b"\n"):
        line = stream.readline(_BUFFER_BYTES)
        size += len(line)
    return size
