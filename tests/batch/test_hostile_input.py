"""Input that is hostile, large or oddly spelled: no code runs, memory stays bounded, no row is made up."""

import gzip
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.errors import InputError
from rankmill.settings.rerank import Columns
from rankmill.tables import footers, parquet
from rankmill.tables.locate import list_files
from rankmill.tables.schema import Layout, layout_of
from tests.batch.conftest import Row, write_jsonl, write_parquet
from tests.batch.jobs import read_rankings, read_rejected, run_job
from tests.memory import MIB, peak_growth

ALL = "100%"


def some(count: int = 6, query: str = "q") -> list[Row]:
    return [{"query_id": query, "query": "fox", "doc_id": f"{query}{n}", "text": f"dog {n}"} for n in range(count)]


def repeated(text: str, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, dtype=np.int32)), pa.array([text]))


def bomb(path: Path, text: str, count: int, *, in_lists: bool = False) -> Path:
    """A small file that stands for `count` copies of a text."""
    ids = pa.array([str(n) for n in range(count)])
    if in_lists:
        structs = pa.StructArray.from_arrays([ids, repeated(text, count)], ["doc_id", "text"])
        table = pa.table(
            {"query_id": ["q"], "query": ["fox"], "candidates": pa.ListArray.from_arrays([0, count], structs)}
        )
    else:
        columns = {"query_id": ["q"] * count, "query": ["fox"] * count, "doc_id": ids, "text": repeated(text, count)}
        table = pa.table(columns)
    pq.write_table(table, path, compression="zstd", dictionary_pagesize_limit=8 * MIB)
    assert path.stat().st_size < 200_000
    return path


CREEPY = """
import sys, ray.data, pyarrow as pa
import pyarrow.parquet as pq
from tests.batch.jobs import run_job
try:
    run_job(sys.argv[1], sys.argv[2], sys.argv[3], keep=("payload",))
except Exception as error:
    print(type(error).__name__, error)
"""


class _Touch:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self._path,))


@pytest.mark.parametrize("inside", [0, 1])
def test_a_column_that_would_run_code_is_refused_and_runs_none(inside: int, tmp_path: Path, model: Path) -> None:
    """In a process that knows Ray's type of pickled objects, as every worker does."""
    payload = pa.array([pickle.dumps(_Touch(tmp_path / "ran"))], pa.large_binary())
    metadata = {b"ARROW:extension:name": b"ray.data.arrow_pickled_object", b"ARROW:extension:metadata": b""}
    field = pa.field("payload", payload.type, metadata=metadata)
    plain = pa.Table.from_pylist(some(1))
    if inside:
        struct = pa.StructArray.from_arrays([payload], fields=[field])
        table = plain.append_column("payload", struct)
    else:
        table = plain.append_column(field, payload)
    pq.write_table(table, tmp_path / "in.parquet")
    command = [sys.executable, "-c", CREEPY, *map(str, (tmp_path / "in.parquet", tmp_path / "out", model))]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "InputError" in said.stdout, said.stderr
    assert "of the extension type ray.data.arrow_pickled_object" in said.stdout
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("in_lists", [0, 1])
def test_a_text_that_is_too_large_is_never_copied(in_lists: int, tmp_path: Path, model: Path) -> None:
    """20,000 copies of 4 MiB, 80 GiB together, in a hundred kilobytes."""
    source = bomb(tmp_path / "in.parquet", "z" * (4 * MIB), 20_000, in_lists=bool(in_lists))
    with peak_growth() as grown:
        done = run_job(source, tmp_path / "out", model, max_text_bytes=MIB, max_rejected=ALL)
    assert grown() < 1024 * MIB
    assert (done.totals.rejected, done.totals.rows_out) == (20_000, 0)
    assert set(read_rejected(tmp_path / "out")["reason"].to_pylist()) == {"text_too_large"}
    detail = read_rejected(tmp_path / "out")["detail"][0].as_py()
    assert detail == "text has more than the 1,048,576 bytes that --max-text-bytes allows"


@pytest.mark.parametrize("in_lists", [0, 1])
def test_texts_are_bounded_together_too(
    in_lists: int, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("rankmill.batch.read", "rankmill.tables.canonical"):
        monkeypatch.setattr(f"{module}.TABLE_BYTES", 100 * 2048 + 1000)
    for module in ("rankmill.tables.parquet",):
        monkeypatch.setattr(f"{module}._EXPANDED_BYTES", 4096)
    source = bomb(tmp_path / "in.parquet", "word " * 409 + "end", 150, in_lists=bool(in_lists))
    done = run_job(source, tmp_path / "out", model, max_rejected=ALL, shard_pairs=1000)
    assert (done.totals.rejected, done.totals.rows_out) == (50, 100)
    assert read_rejected(tmp_path / "out")["reason"].to_pylist() == ["text_too_large"] * 50


def test_a_gigantic_text_is_rejected_and_the_others_are_ranked(tmp_path: Path, model: Path) -> None:
    rows = some()
    rows[2]["text"] = "z" * (2 * MIB)
    for source in (write_parquet(tmp_path / "a.parquet", rows), write_jsonl(tmp_path / "b.jsonl", rows)):
        output = tmp_path / f"out-{source.stem}"
        run_job(source, output, model, max_text_bytes=MIB, max_rejected="1")
        assert read_rejected(output).select(["row", "doc_id", "reason"]).to_pylist() == [
            {"row": 2, "doc_id": "q2", "reason": "text_too_large"}
        ]
        assert len(read_rankings(output)) == 5


@pytest.mark.slow
def test_a_column_of_more_than_two_gigabytes_is_read_a_little_at_a_time(tmp_path: Path, model: Path) -> None:
    """One row group of 2.1 GiB of text, beyond what offsets of 32 bits reach, that packs into a few kilobytes."""
    batch = pa.record_batch(
        {
            "query_id": ["q"] * 100,
            "query": ["fox"] * 100,
            "doc_id": [str(n) for n in range(100)],
            "text": [*["z" * MIB] * 98, "dog", "cat"],
        }
    )
    options = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}
    table = pa.Table.from_batches([batch] * 22)
    pq.write_table(table, tmp_path / "in.parquet", write_batch_size=8, **options)  # a page must be held, that is all
    meta = pq.read_metadata(tmp_path / "in.parquet")
    assert meta.num_row_groups == 1
    assert meta.row_group(0).column(3).total_uncompressed_size > 2**31
    flags: dict[str, Any] = {"max_text_bytes": 1000, "max_rejected": ALL, "shard_pairs": 10_000}
    with peak_growth() as grown:
        done = run_job(tmp_path / "in.parquet", tmp_path / "out", model, **flags)
    assert grown() < 400 * MIB
    assert (done.totals.rejected, done.totals.rows_out) == (22 * 98, 22 * 2)
    assert {row["doc_id"] for row in read_rankings(tmp_path / "out")} == {"98", "99"}


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz"])
def test_a_line_beyond_all_measure_is_rejected_and_the_others_are_ranked(
    name: str, tmp_path: Path, model: Path
) -> None:
    lines = [orjson.dumps(row) + b"\n" for row in some()]
    lines[3] = orjson.dumps({**some()[3], "text": "z" * (200 * MIB)}) + b"\n"
    body = b"".join(lines)
    (tmp_path / name).write_bytes(gzip.compress(body, 1) if name.endswith(".gz") else body)
    size, lines, body = len(lines[3]), [], b""
    with peak_growth() as grown:
        done = run_job(tmp_path / name, tmp_path / "out", model, max_rejected="1")
    assert grown() < 150 * MIB
    assert (done.totals.pairs_in, done.totals.rejected, done.totals.rows_out) == (6, 1, 5)
    (rejected,) = read_rejected(tmp_path / "out").to_pylist()
    assert (Path(rejected["source"]).name, rejected["row"], rejected["reason"]) == (name, 3, "text_too_large")
    assert f"the line has {size:,} bytes, and 67,108,864 are allowed" in rejected["detail"]


def test_every_spelling_of_text_is_one_and_the_same(tmp_path: Path, model: Path) -> None:
    kinds = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
    plain, mixed = tmp_path / "plain", tmp_path / "mixed"
    for number, kind in enumerate(kinds):
        rows = some(4, f"q{number % 2}")
        names = list(rows[0])
        write_parquet(plain / f"{number}.parquet", rows)
        columns = [pa.array([row[name] for row in rows], pa.string()) for name in names]
        columns = [
            column.dictionary_encode() if pa.types.is_dictionary(kind) else column.cast(kind) for column in columns
        ]
        (mixed / "x").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns, names), mixed / f"{number}.parquet")
    for folder in (plain, mixed):
        run_job(folder, tmp_path / f"out-{folder.name}", model, keep=("text",))
    assert read_rankings(tmp_path / "out-plain") == read_rankings(tmp_path / "out-mixed")


def test_files_and_row_groups_without_rows_are_nothing_special(tmp_path: Path, model: Path) -> None:
    rows = some()
    schema = pa.Table.from_pylist(rows).schema
    write_parquet(tmp_path / "in" / "a.parquet", [], schema)
    with pq.ParquetWriter(tmp_path / "in" / "b.parquet", schema) as out:
        for part in ([], rows[:3], [], rows[3:], []):
            out.write_table(pa.Table.from_pylist(part, schema=schema))
    run_job(tmp_path / "in", tmp_path / "out", model)
    assert {row["doc_id"] for row in read_rankings(tmp_path / "out")} == {row["doc_id"] for row in rows}


def test_duplicates_are_refused_where_they_must_not_be(tmp_path: Path, model: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", [*some(3), some(3)[1]])
    with pytest.raises(InputError, match="query 'q', document 'q1': 2 times"):
        run_job(source, tmp_path / "refused", model, require_unique=True)
    assert run_job(source, tmp_path / "out", model).totals.rows_out == 4
    unique = write_parquet(tmp_path / "unique.parquet", some(3))
    assert run_job(unique, tmp_path / "out2", model, require_unique=True).totals.rows_out == 3


def test_ids_that_explode_are_not_expanded_while_planning(tmp_path: Path) -> None:
    count = 100_000
    table = pa.table({"query_id": repeated("q" * MIB, count), "query": repeated("fox", count)})
    table = table.append_column("doc_id", repeated("d", count)).append_column("text", repeated("dog", count))
    pq.write_table(table, tmp_path / "in.parquet", compression="zstd", dictionary_pagesize_limit=8 * MIB)
    (file,) = list_files(str(tmp_path / "in.parquet"))
    layout, _ = layout_of(footers.read_footer(file).schema, Columns(), (), None)
    assert isinstance(layout, Layout)
    with peak_growth() as grown:
        assert parquet.find_runs(file, layout).rows.tolist() == [count]
    assert grown() < 512 * MIB  # expanded: 97 GiB
