"""Whether a Parquet file has page checksums is read from its first page, whoever wrote it and however."""

import io
import itertools
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.tables.checksums import crc_in, has_checksums

TEXTS = pa.table({"text": [f"{n * 7919 % 104729} dogs" for n in range(30_000)], "n": range(30_000)})


def written(table: pa.Table, **options: Any) -> io.BytesIO:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink


@pytest.mark.parametrize(
    ("rows", "dictionary", "version", "codec"),
    list(itertools.product([1, 30_000], [True, False], ["1.0", "2.0"], ["none", "zstd"])),
)
@pytest.mark.parametrize("checksums", [True, False])
def test_all_ways_to_write_a_page(*, checksums: bool, rows: int, dictionary: bool, version: str, codec: str) -> None:
    file = written(
        TEXTS[:rows],
        use_dictionary=dictionary,
        data_page_version=version,
        compression=codec,
        write_page_checksum=checksums,
    )
    assert has_checksums(file, pq.read_metadata(file)) == checksums


def test_a_row_group_without_rows_says_nothing() -> None:
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, TEXTS.schema) as out:
        out.write_table(TEXTS[:0])
        out.write_table(TEXTS[:5])
    assert not has_checksums(sink, pq.read_metadata(sink))
    empty = written(TEXTS[:0])
    assert has_checksums(empty, pq.read_metadata(empty)), "nothing in it can be wrong"


@pytest.mark.parametrize("header", [b"", b"\x15", b"\x15\x00\x15\x80", b"\x15\x00\x15\xff\xff\xff", b"PAR1" * 8])
def test_what_is_no_page_header_has_none(header: bytes) -> None:
    assert not crc_in(header)
