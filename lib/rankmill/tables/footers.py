"""What Parquet footers say, looked at so that a damaged one is an error and not the end of the process.

Arrow builds a column chunk's metadata when it is asked for, and refuses some damage by throwing. Inside its readers
that becomes an error; `RowGroupMetaData.column` of pyarrow 26 calls the same code where nothing may be thrown, and the
process is aborted. So Arrow's reader is made to build all of them first.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from rankmill.errors import DamagedInputError, InputError
from rankmill.tables.checksums import has_checksums
from rankmill.tables.errors import storage_errors
from rankmill.tables.locate import InputFile, open_file
from rankmill.tables.text import TABLE_BYTES

_BUFFER_BYTES = 4096  # any: with a buffer, the codec is looked up before the first read


@dataclass(frozen=True, slots=True)
class Footer:
    """What a Parquet footer says."""

    schema: pa.Schema
    rows: int
    uncompressed_bytes: int
    checked: bool
    """Whether its pages carry checksums."""


def read_footer(file: InputFile) -> Footer:
    """Read the schema and the size of a file.

    Raises:
        InputError: it has rows that no memory is meant to hold.
        DamagedInputError: it cannot be read, or is compressed with what cannot be undone here.
        InputError, StorageError: as `storage_errors` says.
    """
    with storage_errors(file.uri), open_file(file) as handle:
        parquet = pq.ParquetFile(handle)
        meta = parquet.metadata
        groups = range(meta.num_row_groups)
        check_footer(file, meta, groups)
        _refuse_codecs(file, meta)
        _refuse_giants(file, meta)
        size = sum(int(meta.row_group(index).total_byte_size) for index in groups)
        return Footer(parquet.schema_arrow, meta.num_rows, size, has_checksums(handle, meta))


def check_footer(file: InputFile, meta: pq.FileMetaData, groups: range) -> None:
    """Look whether the footer agrees with itself, and let Arrow look at the column chunks of some row groups.

    What may be asked of those chunks afterwards is all but their `compression` and their `statistics`.

    Args:
        file: of which nothing is read.
        meta: its footer.
        groups: the row groups.

    Raises:
        DamagedInputError: the row groups do not have the rows of the file.
        OSError, pyarrow.ArrowException: the metadata of a chunk are damaged.
    """
    rows = [meta.row_group(index).num_rows for index in range(meta.num_row_groups)]
    if sum(rows) != meta.num_rows or min(rows, default=0) < 0:
        raise DamagedInputError(
            f"{file.uri} cannot be read: by its footer it has {meta.num_rows:,} rows, and its row groups {sum(rows):,}."
        )
    sealed = _Sealed(file.size)
    reader = pq.ParquetFile(sealed, metadata=meta, pre_buffer=True)  # all reads are planned before the first one
    with sealed.failing_at_first_read():
        reader.read_row_groups(list(groups), use_threads=False)


def _refuse_codecs(file: InputFile, meta: pq.FileMetaData) -> None:
    """Let Arrow look for what undoes the compression of each column; the first row group stands for all."""
    sealed = _Sealed(file.size)
    reader = pq.ParquetFile(sealed, metadata=meta, buffer_size=_BUFFER_BYTES)
    for column in range(meta.num_columns if meta.num_row_groups else 0):
        with sealed.failing_at_first_read():
            reader.reader.read_row_group(0, column_indices=[column], use_threads=False)


def _refuse_giants(file: InputFile, meta: pq.FileMetaData) -> None:
    for index in range(meta.num_row_groups):
        group = meta.row_group(index)
        size = int(group.total_byte_size) // max(group.num_rows, 1)
        if size > TABLE_BYTES:
            raise InputError(
                f"{file.uri}: the rows of row group {index} have {size:,} bytes on average, and the texts of a whole "
                f"shard may have {TABLE_BYTES:,}. Write smaller rows, such as one for each pair."
            )


class _Sealed(io.RawIOBase):
    """A file of which nothing but its size can be known; whoever reads in it finds it cut short.

    It raises nothing: pyarrow 26 never lets go of what a file raised, nor of the footer that was looked at.
    """

    def __init__(self, size: int) -> None:
        self._size, self._at, self._reached = size, 0, False

    @contextmanager
    def failing_at_first_read(self) -> Iterator[None]:
        """Pass no error on that came after the first byte was asked for: all that comes before it went well then."""
        self._reached = False
        try:
            yield
        except (OSError, pa.ArrowException):
            if not self._reached:
                raise

    def readable(self) -> bool:
        """Yes, to whoever does not try."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Where the next byte would be read."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go anywhere."""
        self._at = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence] + offset
        return self._at

    def read(self, _: int = -1) -> bytes:
        """No byte."""
        self._reached = True
        return b""
