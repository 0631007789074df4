"""`--publish delta`: other people's readers of Delta tables see the finished job, whole, and nothing before."""

import datetime as dt
import decimal
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from rankmill.batch import job as batch
from rankmill.batch import publish
from rankmill.batch.executor import InProcess
from rankmill.batch.receipts import Receipt
from rankmill.batch.recorded import open_output, read
from rankmill.batch.stages import Encode, Write
from rankmill.batch.verify import verify
from rankmill.errors import OutputConflictError, UsageError
from rankmill.scoring.options import ScorerOptions
from rankmill.settings.storage import StorageSettings
from rankmill.storage.store import Store
from tests.batch.conftest import Row, write_parquet
from tests.batch.jobs import read_rankings, run_job, settings_for
from tests.conftest import S3Bucket

Place = tuple[str, dict[str, str]]
"""Where the output is, and what deltalake has to be told of the store."""


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "local":
        return str(tmp_path / "out"), {}
    s3: S3Bucket = request.getfixturevalue("s3")
    return s3.uri("deep/out"), {**s3.environment, "AWS_ALLOW_HTTP": "true"}


def table(place: Place) -> DeltaTable:
    return DeltaTable(place[0], storage_options=place[1])


def by_rank(found: pa.Table) -> list[Row]:
    rows: list[Row] = found.sort_by([("query_id", "ascending"), ("rank", "ascending")]).to_pylist()
    return rows


def test_a_delta_reader_sees_what_is_in_the_parts(place: Place, tmp_path: Path, model: Path, rows: list[Row]) -> None:
    """And no rejected rows; before the entry there is no table."""
    source = write_parquet(tmp_path / "in.parquet", [{**rows[0], "text": None}, *rows])
    settings: dict[str, Any] = {"keep": ("lang",), "max_rejected": 1}
    run_job(source, place[0], model, **settings)
    with pytest.raises(TableNotFoundError):
        table(place)
    assert run_job(source, place[0], model, **settings, publish="delta").already_complete
    found = table(place)
    assert by_rank(found.to_pyarrow_table()) == read_rankings(place[0])
    assert found.version() == 0
    adds = pa.table(found.get_add_actions(flatten=True)).to_pylist()
    assert sum(add["num_records"] for add in adds) == len(rows)
    store = Store(place[0])
    assert {add["path"]: add["size_bytes"] for add in adds} == {
        key: size for key, size in store.sizes().items() if key.startswith("part-")
    }
    before = store.read(publish.ENTRY)
    assert run_job(source, place[0], model, **settings, publish="delta").already_complete
    assert store.read(publish.ENTRY) == before
    assert verify(read(open_output(place[0], StorageSettings())), deep=True).whole


def test_a_new_job_is_published_after_its_marker_and_so_is_one_that_was_killed_in_between(
    tmp_path: Path, model: Path, rows: list[Row]
) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows)
    out = tmp_path / "out"
    run_job(source, out, model, publish="delta")
    entry = (out / publish.ENTRY).read_bytes()
    assert (out / "_SUCCESS").stat().st_mtime_ns < (out / publish.ENTRY).stat().st_mtime_ns
    (out / publish.ENTRY).unlink()
    assert run_job(source, out, model, publish="delta").already_complete
    assert (out / publish.ENTRY).read_bytes() == entry, "whoever publishes a job writes the same"


def test_a_job_that_fails_is_not_published(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    class Killed(InProcess):
        def run_shards(self, encode: Encode, scorer: ScorerOptions, write: Write) -> Generator[Receipt]:
            yield from InProcess().run_shards(encode, scorer, write)
            raise ConnectionError("killed")

    source = write_parquet(tmp_path / "in.parquet", rows)
    with pytest.raises(ConnectionError):
        batch.run(batch.prepare(settings_for(source, tmp_path / "out", model, publish="delta")), Killed())
    with pytest.raises(TableNotFoundError):
        DeltaTable(tmp_path / "out")


@pytest.mark.parametrize("settings", [{"shape": "nested"}, {"long_documents": "chunk", "top_k": 4}], ids=str)
def test_other_shapes_of_output(tmp_path: Path, model: Path, rows: list[Row], settings: dict[str, Any]) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows)
    run_job(source, tmp_path / "out", model, **settings, publish="delta")
    found = DeltaTable(tmp_path / "out").to_pyarrow_table()
    expected = sorted(read_rankings(tmp_path / "out"), key=lambda row: (row["query_id"], row.get("rank", 0)))
    assert sorted(found.to_pylist(), key=lambda row: (row["query_id"], row.get("rank", 0))) == expected
    assert found.num_rows == sum(
        add["num_records"] for add in pa.table(DeltaTable(tmp_path / "out").get_add_actions(flatten=True)).to_pylist()
    )


def test_every_type_that_delta_has(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    values: dict[str, tuple[pa.DataType, Any]] = {
        "a": (pa.int8(), -3), "b": (pa.int16(), 300), "c": (pa.int32(), 70_000), "d": (pa.int64(), 2**40),
        "e": (pa.float32(), 0.5), "f": (pa.float64(), 0.1), "g": (pa.bool_(), True), "h": (pa.large_string(), "é"),
        "i": (pa.binary(), b"\xff"), "j": (pa.date32(), dt.date(2024, 2, 29)),
        "k": (pa.timestamp("us", "UTC"), dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC)),
        "l": (pa.decimal128(10, 2), decimal.Decimal("12.34")), "m": (pa.list_(pa.int32()), [1, None, 3]),
        "n": (pa.struct([("x", pa.int64()), ("y", pa.list_(pa.string()))]), {"x": 1, "y": ["z"]}),
    }  # fmt: skip
    full = pa.Table.from_pylist(rows)
    for name, (kind, value) in values.items():
        full = full.append_column(name, pa.array([value] * (len(rows) - 1) + [None], kind))
    full = full.set_column(0, "query_id", pa.array([int(row["query_id"][1:]) for row in rows], pa.int32()))
    source = tmp_path / "in.parquet"
    pa.parquet.write_table(full, source)
    run_job(source, tmp_path / "out", model, keep=tuple(values), publish="delta")
    found = DeltaTable(tmp_path / "out").to_pyarrow_table()
    assert by_rank(found) == read_rankings(tmp_path / "out")
    assert found.schema.field("query_id").type == pa.int32()


@pytest.mark.parametrize(
    ("name", "kind", "value", "said"),
    [
        ("n", pa.uint32(), 1, "column n is uint32, for which Delta has no type"),
        ("n", pa.timestamp("ns"), 0, r"column n is timestamp\[ns\], for which"),
        ("n", pa.list_(pa.uint8()), [1], r"column n is list<element: uint8>, for which"),
        ("two words", pa.int64(), 1, "column 'two words' has one of the characters"),
    ],
)
def test_what_delta_cannot_have_is_refused_before_anything_is_written(
    tmp_path: Path, model: Path, rows: list[Row], name: str, kind: pa.DataType, value: Any, said: str
) -> None:
    source = tmp_path / "in.parquet"
    pa.parquet.write_table(pa.Table.from_pylist(rows).append_column(name, pa.array([value] * len(rows), kind)), source)
    with pytest.raises(UsageError, match=said):
        run_job(source, tmp_path / "out", model, keep=(name,), publish="delta")
    assert not (tmp_path / "out").exists()


def another_entry(out: str) -> None:
    metadata = {"metaData": {"id": "9d1c", "schemaString": "{}"}}
    Store(out).create(publish.ENTRY, orjson.dumps(metadata))


def a_later_entry(out: str) -> None:
    """Of a table whose first entries were cleaned up."""
    Store(out).create("_delta_log/00000000000000000012.json", b"{}")


def no_entry(out: str) -> None:
    Store(out).create(publish.ENTRY, b"\xff{")


@pytest.mark.parametrize("written", [another_entry, a_later_entry, no_entry], ids=lambda function: function.__name__)
def test_the_log_of_another_table_is_refused(
    place: Place, tmp_path: Path, model: Path, rows: list[Row], written: Callable[[str], None]
) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows)
    run_job(source, place[0], model)
    written(place[0])
    there = {key: Store(place[0]).read(key) for key in Store(place[0]).keys("_delta_log")}
    with pytest.raises(OutputConflictError, match="_delta_log is the log of another Delta table"):
        run_job(source, place[0], model, publish="delta")
    assert {key: Store(place[0]).read(key) for key in Store(place[0]).keys("_delta_log")} == there
    assert Store(place[0]).read_if_present("_SUCCESS") is not None


def test_of_two_publishers_the_second_adopts(place: Place, tmp_path: Path, model: Path, rows: list[Row]) -> None:
    """The other one writes after this one has looked, before it creates."""
    source = write_parquet(tmp_path / "in.parquet", rows)
    run_job(source, place[0], model)

    class Slow(Store):
        def create(self, key: str, body: bytes, metadata: Any = None) -> bool:
            assert Store(place[0]).create(key, body)
            return super().create(key, body, metadata)

    job = batch.prepare(settings_for(source, place[0], model, publish="delta"))
    recorded = read(job.store)
    arguments = (str(recorded.job["fingerprint"]), job.part_schema, recorded.receipts())
    publish.publish(Slow(place[0]), *arguments, nested=False)
    assert table(place).to_pyarrow_table().num_rows == len(rows)


def test_a_job_into_the_folder_of_a_delta_table_is_refused(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows)
    another_entry(str(tmp_path / "out"))
    with pytest.raises(OutputConflictError, match="is not empty and holds no rankmill job"):
        run_job(source, tmp_path / "out", model, publish="delta")


def test_verify_looks_at_the_log(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows)
    run_job(source, tmp_path / "out", model, publish="delta")
    entry = tmp_path / "out" / publish.ENTRY
    good = entry.read_bytes()
    for old, new, said in (
        (b"part-000001", b"part-000111", "part-000001.parquet with"),
        (b'"id":"', b'"id":"x', "of this job; found x"),
    ):
        entry.write_bytes(good.replace(old, new))
        found = verify(read(open_output(str(tmp_path / "out"), StorageSettings())))
        assert any(said in str(problem) for problem in found.problems), found.problems
