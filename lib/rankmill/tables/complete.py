"""Parquet read to its end: all the rows that the footer promises, or an error.

The checksum of a page does not cover its header. Arrow skips a page whose header names a kind that it does not know, or
says that it has fewer values, and when a column ends too soon it takes that for the end of all.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from rankmill.errors import DamagedInputError
from rankmill.tables.footers import check_footer
from rankmill.tables.locate import InputFile


def complete(
    batches: Iterable[pa.RecordBatch], rows: int, file: InputFile, groups: Sequence[int]
) -> Iterator[pa.RecordBatch]:
    """Pass batches on, the last one not before it is known that all of their rows came.

    Raises:
        DamagedInputError: more rows came, or fewer.
    """
    last, came = None, 0
    for batch in batches:
        if last is not None:
            yield last
        last, came = batch, came + len(batch)
    _refuse_lost(came, rows, file, groups)
    if last is not None:
        yield last


def open_parquet(file: InputFile, handle: IO[bytes]) -> pq.ParquetFile:
    """Open a file whose pages will be checked; the footer is looked at here, see `check_footer`.

    Raises:
        DamagedInputError: its row groups do not have the rows of the file.
        OSError, pyarrow.ArrowException: it is damaged otherwise.
    """
    parquet = pq.ParquetFile(handle, page_checksum_verification=True)
    check_footer(file, parquet.metadata, range(parquet.num_row_groups))
    return parquet


def read_groups(
    file: InputFile, parquet: pq.ParquetFile, groups: Sequence[int], columns: Sequence[str] | None = None
) -> pa.Table:
    """All rows of some row groups.

    Args:
        file: for its name.
        parquet: the same, opened.
        groups: the row groups.
        columns: which; None for all.

    Raises:
        DamagedInputError: more rows came, or fewer.
        OSError, pyarrow.ArrowException: it is damaged otherwise.
    """
    table = parquet.read_row_groups(list(groups), columns=columns and list(columns))
    _refuse_lost(len(table), sum(parquet.metadata.row_group(index).num_rows for index in groups), file, groups)
    return table


def _refuse_lost(came: int, rows: int, file: InputFile, groups: Sequence[int]) -> None:
    if came != rows:
        which = f"row group {groups[0]} has" if len(groups) == 1 else f"its {len(groups):,} row groups have"
        raise DamagedInputError(
            f"{file.uri} cannot be read: by its footer {which} {rows:,} rows, and {came:,} came. The header of a page "
            "is damaged."
        )
