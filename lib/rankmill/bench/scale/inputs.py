"""Inputs of a size that is asked for, cheaply made."""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rankmill.storage.store import Store

_FILE = b"########"  # stands for the number of the file, in every query id and its statistics
_WRITERS = 16
_GROUP_ROWS = 2
_GROUP_SHARDS = 8


def many_files(store: Store, files: range, row_groups: int) -> None:
    """Write Parquet files, `NNNNNNNN.parquet`, that differ in their query ids and in nothing else.

    One is encoded, and then copied with other ids in the place of its own: neither the ids nor their statistics are
    compressed. A copy with a checksum per page could not be made like that, so they have none.
    """
    template = _encoded(row_groups)

    def write(number: int) -> None:
        name = f"{number:08}"
        store.create(f"{name}.parquet", template.replace(_FILE, name.encode()))

    with ThreadPoolExecutor(_WRITERS) as pool:
        for _ in pool.map(write, files):
            pass


def one_file(path: Path, shards: int, pairs: int) -> None:
    """Write a Parquet file with one query of `pairs` candidates for each shard, and eight shards in a row group.

    So many are read in one go. A row group has no index: who reads from its middle decodes what comes before, and with
    a thousand small shards in each that, and nothing of what is measured, would take most of the time.
    """
    with pq.ParquetWriter(path, _table(0, 1, "").schema, write_page_checksum=True) as out:
        for first in range(0, shards, _GROUP_SHARDS):
            last = min(first + _GROUP_SHARDS, shards)
            out.write_table(pa.concat_tables(_table(query, pairs, "q") for query in range(first, last)))


def _encoded(row_groups: int) -> bytes:
    sink = io.BytesIO()
    tables = [_table(group, _GROUP_ROWS, f"q{_FILE.decode()}-") for group in range(row_groups)]
    pq.write_table(pa.concat_tables(tables), sink, row_group_size=_GROUP_ROWS, compression="none", use_dictionary=False)
    return sink.getvalue()


def _table(query: int, pairs: int, prefix: str) -> pa.Table:
    def column(words: Iterator[str]) -> pa.Array:
        return pa.array(list(words), pa.string())

    rows = range(pairs)
    return pa.table(
        {
            "query_id": column(f"{prefix}{query:06}" for _ in rows),
            "query": column(f"what is number {query}" for _ in rows),
            "doc_id": column(f"d{row:06}" for row in rows),
            "text": column(f"A short text about number {query} and number {row}." for row in rows),
        }
    )
