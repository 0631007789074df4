"""The plan lies in the output as a file: any reader can say which rows made which part, and a second run goes by it."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankmill.batch import job as batch
from rankmill.batch import plan_file
from rankmill.batch.executor import InProcess
from rankmill.batch.plan import Piece, Plan, Scattered, Shard, make_plan
from rankmill.errors import OutputConflictError
from rankmill.storage.store import Store
from rankmill.tables.locate import InputFile
from tests.batch.conftest import Row, write_parquet
from tests.batch.jobs import read_rankings, run_job, settings_for
from tests.batch.test_plan import LAYOUT, files, runs
from tests.conftest import S3Bucket

T = TypeVar("T")
R = TypeVar("R")


class Blind(InProcess):
    """Cannot look for queries in the input."""

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        raise AssertionError(f"asked for {function} of {len(items)}")


def planned(ids: list[list[str]], shard_pairs: int) -> Plan:
    inputs = [InputFile(f"{n}.parquet", n, f"v{n}") for n in range(len(ids))]
    return make_plan(inputs, LAYOUT, [runs(each) for each in ids], shard_pairs)


@settings(deadline=None, max_examples=50)
@given(ids=files, shard_pairs=st.integers(1, 12))
def test_the_file_says_what_the_plan_says(ids: list[list[str]], shard_pairs: int) -> None:
    plan = planned(ids, shard_pairs)
    body = plan_file.to_parquet(plan)
    rows = pq.read_table(pa.BufferReader(body)).to_pylist()
    assert [(row["shard"], row["queries"], row["pairs"]) for row in rows] == [
        (shard.index, shard.queries, shard.pairs) for shard in plan.shards
    ]
    assert sum(row["queries"] for row in rows) == plan.queries
    hashes = {query: int(runs([query]).query[0]) for each in ids for query in each}
    for row in rows:
        if row["source"] is not None:
            number = int(row["source"].removesuffix(".parquet"))
            found = ids[number][row["start"] : row["stop"]]
            assert (row["bytes"], row["version"], row["places"]) == (number, f"v{number}", 1)
            assert row["first_query"] is None
        else:
            mine = {query for query, value in hashes.items() if row["first_query"] <= value <= row["last_query"]}
            places = [len(runs(each).where(runs(each).query == hashes[query])) for query in mine for each in ids]
            scattered = {
                query for query in mine if sum(len(r.where(r.query == hashes[query])) for r in map(runs, ids)) > 1
            }
            assert len(scattered) == row["queries"]
            found = [query for each in ids for query in each if query in scattered]
            assert row["places"] == sum(places) - len(mine - scattered)
        assert (len(found), len(set(found))) == (row["pairs"], row["queries"])
    again = plan_file.to_plan(body, plan.files, plan.layout)
    if any(row["source"] is None for row in rows):
        assert again is None
    else:
        assert again is not None
        assert (again.shards, again.queries, again.pairs, len(again.scattered)) == (
            plan.shards, plan.queries, plan.pairs, 0,
        )  # fmt: skip


@settings(deadline=None, max_examples=50)
@given(ids=files, shard_pairs=st.integers(1, 12))
def test_the_digest_is_of_the_rows_and_not_of_the_bytes(ids: list[list[str]], shard_pairs: int) -> None:
    body = plan_file.to_parquet(planned(ids, shard_pairs))
    table = pq.read_table(pa.BufferReader(body))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=2, compression="snappy", use_dictionary=False)
    other = sink.getvalue().to_pybytes()
    assert other != body
    assert plan_file.digest(other) == plan_file.digest(body)
    for field in table.schema if len(table) else ():
        *others, last = table.column(field.name).to_pylist()
        changed = f"{last}!" if pa.types.is_string(field.type) else (last or 0) ^ 1
        column = pa.array([*others, changed], field.type)
        sink = pa.BufferOutputStream()
        pq.write_table(table.set_column(table.schema.get_field_index(field.name), field, column), sink)
        assert plan_file.digest(sink.getvalue().to_pybytes()) != plan_file.digest(body), field


def test_a_hundred_thousand_shards_are_written_and_compared_a_part_at_a_time() -> None:
    """What it takes is the file, some bytes a shard, and a fixed number of rows: not the table."""
    count = 3 * plan_file._ROWS
    source = InputFile("s3://bucket/a/long/name/of/a/file.parquet", 1, "version")
    shards = tuple(Shard(n, 1, 5, (Piece(0, n, n + 1, 0),)) for n in range(count))
    plan = Plan((source,), LAYOUT, shards, Scattered.none(), count, 5 * count)
    groups = pq.read_metadata(pa.BufferReader(plan_file.to_parquet(plan)))
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [plan_file._ROWS] * 3
    assert groups.serialized_size < 20_000
    body = plan_file.to_parquet(plan)
    assert len(body) < 12 * count
    assert [batch.num_rows for batch in plan_file.read(body)] == [plan_file._ROWS] * 3


def recorded(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((output / "_rankmill" / "job.json").read_bytes())["plan"]
    return found


def unfinish(output: Path) -> None:
    for name in ("_SUCCESS", "_rankmill/manifest.json", "_rankmill/commits/000002.json", "part-000002.parquet"):
        (output / name).unlink()


def test_a_job_leaves_its_plan_beside_its_record(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows)
    run_job(source, tmp_path / "out", model)
    path = tmp_path / "out" / plan_file.PLAN
    assert plan_file.digest(path.read_bytes()) == recorded(tmp_path / "out")["digest"]
    ids = pq.read_table(source).column("query_id").to_pylist()
    for row in pq.read_table(path).to_pylist():
        assert (row["source"], row["bytes"]) == (str(source), source.stat().st_size)
        ranked = pq.read_table(tmp_path / "out" / f"part-{row['shard']:06}.parquet").column("query_id").to_pylist()
        assert sorted(ranked) == sorted(ids[row["start"] : row["stop"]])
    assert path.stat().st_mtime_ns < (tmp_path / "out" / "_rankmill" / "job.json").stat().st_mtime_ns


def test_a_second_run_goes_by_the_plan_and_does_not_look_for_queries(
    tmp_path: Path, model: Path, rows: list[Row]
) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows)
    run_job(source, tmp_path / "out", model)
    rankings, plan = read_rankings(tmp_path / "out"), (tmp_path / "out" / plan_file.PLAN).read_bytes()
    unfinish(tmp_path / "out")
    settings = settings_for(source, tmp_path / "out", model)
    batch.run(batch.prepare(settings), Blind())
    assert read_rankings(tmp_path / "out") == rankings
    (tmp_path / "out" / plan_file.PLAN).unlink()
    unfinish(tmp_path / "out")
    with pytest.raises(AssertionError, match="asked for"):
        batch.run(batch.prepare(settings), Blind())
    run_job(source, tmp_path / "out", model)
    assert (tmp_path / "out" / plan_file.PLAN).read_bytes() == plan, "what was lost is made anew"


@pytest.mark.parametrize("where", ["local", "s3"])
def test_a_plan_that_differs_is_refused(
    where: str, tmp_path: Path, model: Path, rows: list[Row], request: pytest.FixtureRequest
) -> None:
    """As a run leaves one that was killed between the two, and had other settings."""
    s3: S3Bucket | None = request.getfixturevalue("s3") if where == "s3" else None
    out = str(tmp_path / "out") if s3 is None else s3.uri("out")
    source = write_parquet(tmp_path / "in.parquet", rows)
    run_job(source, tmp_path / "other", model, shard_pairs=7)
    store = Store(out)
    store.create(plan_file.PLAN, (tmp_path / "other" / plan_file.PLAN).read_bytes())
    with pytest.raises(OutputConflictError, match=r"not the plan of this job: it cuts the input otherwise \(\d+ sha"):
        run_job(source, out, model)
    assert store.keys("") == [plan_file.PLAN]
    run_job(source, out, model, shard_pairs=7)
    assert store.read_if_present("_SUCCESS") is not None


def test_a_plan_that_was_changed_is_refused(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows)
    run_job(source, tmp_path / "out", model)
    unfinish(tmp_path / "out")
    path = tmp_path / "out" / plan_file.PLAN
    body = path.read_bytes()
    for damaged in (body[:-20], b"", b"no Parquet at all"):
        path.write_bytes(damaged)
        with pytest.raises(OutputConflictError, match="not the plan of this job: it cannot be read"):
            run_job(source, tmp_path / "out", model)
    table = pq.read_table(pa.BufferReader(body))
    pq.write_table(table.set_column(7, "stop", pa.array([n + 1 for n in table["stop"].to_pylist()])), path)
    with pytest.raises(OutputConflictError, match="not the plan of this job: it cuts the input otherwise"):
        run_job(source, tmp_path / "out", model)
    path.unlink()
    run_job(source, tmp_path / "out", model)
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(body).digest()
