"""Parquet is decoded a little at a time, whatever its row groups look like."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.errors import InputError
from rankmill.tables import footers, parquet
from rankmill.tables.footers import read_footer
from rankmill.tables.locate import InputFile, list_files
from rankmill.tables.parquet import Chosen, read_batches

TEXT = Chosen(frozenset({"text"}))


def file_of(folder: Path, table: pa.Table, **options: Any) -> InputFile:
    pq.write_table(table, folder / "in.parquet", **options)
    return list_files(str(folder / "in.parquet"))[0]


def sizes(file: InputFile, chosen: Chosen | None = TEXT) -> list[int]:
    """Rows of each batch."""
    return [len(batch) for _, batch in read_batches(file, chosen, 0, 10**9)]


def test_large_texts_are_decoded_few_at_a_time_in_their_own_row_group_only(tmp_path: Path) -> None:
    texts = [*(f"{n} dogs" for n in range(2000)), *(str(n) * 700_000 for n in range(10, 20))]
    path = tmp_path / "in.parquet"
    table = pa.table({"text": texts})
    with pq.ParquetWriter(path, table.schema, use_dictionary=False, write_statistics=False) as out:
        out.write_table(table[:2000])
        out.write_table(table[2000:])
    assert sizes(list_files(str(path))[0]) == [1024, 976, 5, 5]


def test_columns_that_are_not_read_make_no_batch_smaller(tmp_path: Path) -> None:
    images = pa.array([bytes([n]) * (1 << 20) for n in range(50)])
    file = file_of(tmp_path, pa.table({"text": ["dog"] * 50, "image": images}), use_dictionary=False)
    assert sizes(file) == [50]
    assert sizes(file, None) == [7] * 7 + [1]


def test_of_a_giant_row_group_few_rows_are_decoded_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows may have nearly all of its bytes, which its footer does not tell. With a smaller giant than 2 GiB."""
    file = file_of(tmp_path, pa.table({"text": [f"{n} dogs" for n in range(500)]}), use_dictionary=False)
    assert sizes(file) == [500]
    monkeypatch.setattr(parquet, "_GROUP_BYTES", 1000)
    assert sizes(file) == [64] * 7 + [52]


def test_rows_that_no_memory_is_meant_to_hold_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """58 kB can hold a row of 1.2 GB, of many candidates, that takes 5 GB to read; with a lower limit than 512 MiB."""
    structs = pa.array([{"doc_id": str(n), "text": "z" * 1000} for n in range(20)])
    candidates = pa.ListArray.from_arrays([0, 20], structs)
    table = pa.table({"query_id": ["q"], "query": ["fox"], "candidates": candidates})
    file = file_of(tmp_path, table, use_dictionary=False, compression="zstd")
    assert read_footer(file).rows == 1
    monkeypatch.setattr(footers, "TABLE_BYTES", 10_000)
    with pytest.raises(InputError, match=r"in\.parquet: the rows of row group 0 have 2\d,\d{3} bytes on average") as it:
        read_footer(file)
    assert "the texts of a whole shard may have 10,000" in str(it.value)
