"""Scores to reuse as they lie in stores: in buckets, damaged, gone, and of any number."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rankmill.batch import job as batch
from rankmill.batch import reuse
from rankmill.batch.executor import InProcess
from rankmill.batch.recorded import read
from rankmill.batch.verify import verify
from rankmill.errors import StorageError
from rankmill.storage.store import Store
from tests.batch.conftest import Row, write_parquet
from tests.batch.counting_scorer import asked
from tests.batch.jobs import read_rankings, run_job, settings_for
from tests.conftest import S3Bucket

COUNTING = "python:tests.batch.counting_scorer:score"


@pytest.fixture(autouse=True)
def _nothing_asked() -> Iterator[None]:
    asked.clear()
    yield
    asked.clear()


@pytest.fixture(params=["a folder", "a bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where outputs go."""
    if request.param == "a folder":
        return str(tmp_path)
    s3: S3Bucket = request.getfixturevalue("s3")
    return s3.uri("outputs")


def test_scores_are_found_wherever_they_lie(
    tmp_path: Path, rows: list[Row], s3: S3Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a bucket into a bucket, in many parts; what was looked up is looked up again by the night after."""
    monkeypatch.setattr(reuse, "BUCKET_PAIRS", 10)
    source = write_parquet(tmp_path / "in.parquet", rows)
    run_job(source, s3.uri("0"), COUNTING, keep_scores=True)
    changed = [{**row, "text": f"{row['text']} more"} if row["doc_id"] == "d9-3" else row for row in rows]
    today = write_parquet(tmp_path / "today.parquet", changed)
    for night, scored in ((1, 1), (2, 0)):
        asked.clear()
        summary = run_job(today, s3.uri(f"{night}"), COUNTING, reuse=s3.uri(f"{night - 1}"))
        assert (len(asked), summary.totals.reused) == (scored, len(rows) - scored)
    run_job(today, tmp_path / "full", COUNTING)
    assert read_rankings(s3.uri("2")) == read_rankings(tmp_path / "full")
    store = Store(s3.uri("2"))
    assert verify(read(store), deep=True).whole
    assert not [key for key in store.sizes() if key.startswith(reuse.FOLDER)]


def test_scores_that_are_damaged_or_gone_are_not_used(tmp_path: Path, rows: list[Row], place: str) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows)
    old, new = Store(f"{place}/old"), f"{place}/new"
    run_job(source, old.uri, COUNTING, keep_scores=True)
    key = old.keys("_rankmill/scores")[0]
    body = bytearray(old.read(key))
    body[60] ^= 1
    old.delete([key])
    old.create(key, bytes(body))
    asked.clear()
    with pytest.raises(StorageError, match=f"{Path(key).name} is not what its job wrote: no score of that job is tr"):
        run_job(source, new, COUNTING, reuse=old.uri)
    assert [problem.file for problem in verify(read(old), deep=True).problems] == [key]
    old.delete([key])
    with pytest.raises(StorageError, match=f"{Path(key).name} is gone: no score of that job is trusted. Leave --reuse"):
        run_job(source, new, COUNTING, reuse=old.uri)
    assert not verify(read(old)).whole
    old.delete(["_rankmill/manifest.json"])
    old.create("_rankmill/manifest.json", b"{}")
    with pytest.raises(StorageError, match=r"manifest\.json was changed"):
        run_job(source, new, COUNTING, reuse=old.uri)
    assert asked == [], "nothing was scored with some of the scores"
    assert run_job(source, new, COUNTING, keep_scores=True).totals.reused == 0, "the same job, without them"


def test_no_task_holds_more_than_a_bucket(tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pairs an earlier job scored, they are sorted in pieces of a bounded number."""
    monkeypatch.setattr(reuse, "BUCKET_PAIRS", 40)
    most_of_a_query, most_of_a_shard = 25, 20 + 24
    source = write_parquet(tmp_path / "in.parquet", rows)
    run_job(source, tmp_path / "old", COUNTING, keep_scores=True)
    job = batch.prepare(settings_for(source, tmp_path / "new", COUNTING, reuse=str(tmp_path / "old")))
    assert job.earlier is not None
    index = reuse.index(job.earlier, job.store, InProcess())
    folder = tmp_path / "new" / "_rankmill" / "reuse"
    runs = [pq.read_metadata(path).num_rows for path in folder.rglob("run-*.parquet")]
    buckets = [pq.read_metadata(path).num_rows for path in folder.rglob("bucket-*.parquet")]
    assert sum(runs) == sum(buckets) == len(rows)
    assert max(runs) <= max(40, most_of_a_shard)
    assert max(buckets) <= 40 + 2 * most_of_a_query
    assert len(runs) > 3
    assert len(index.buckets) == 8
