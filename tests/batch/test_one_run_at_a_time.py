"""A job holds its output while it runs: what a second run is told, and how a run ends that lost its hold."""

import re
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from rankmill.batch import job as batch
from rankmill.batch.executor import InProcess
from rankmill.batch.receipts import Receipt
from rankmill.batch.stages import Encode, Write
from rankmill.errors import OutputBusyError, TooManyRejectedError
from rankmill.scoring.options import ScorerOptions
from rankmill.storage.lease import Lease, Sighting, acquire, held, look
from rankmill.storage.store import Store
from tests.batch.conftest import Row, write_parquet
from tests.batch.jobs import read_rankings, run_job, run_on_ray, settings_for
from tests.batch.reader import polled
from tests.conftest import S3Bucket
from tests.fault_proxy import FaultProxy, running_fault_proxy


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "awaited for a minute"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_second_run_is_refused_and_told_by_whom(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    """F9, by the run itself: that the command looks before it, test_refused_early.py says."""
    source = write_parquet(tmp_path / "in.parquet", rows)
    told = re.escape(f"{tmp_path / 'out'} is held by a live run, process ")
    with held(Store(str(tmp_path / "out")), 2), pytest.raises(OutputBusyError, match=told):
        run_job(source, tmp_path / "out", model, storage={"lease_seconds": 60})
    assert not list((tmp_path / "out").glob("part-*"))


@pytest.mark.usefixtures("reader")
def test_a_run_that_was_taken_over_from_stops(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    """F10: paused for longer than the lease lasts, it finds another run at work when it goes on."""
    source = write_parquet(tmp_path / "in.parquet", rows)
    store = Store(str(tmp_path / "out"))
    ended: list[InProcess] = []
    others: list[Lease] = []

    class Paused(InProcess):
        def run_shards(self, encode: Encode, scorer: ScorerOptions, write: Write) -> Generator[Receipt]:
            receipts = InProcess().run_shards(encode, scorer, write)
            try:
                yield next(receipts)
                others.append(acquire(store, 0, sleep=lambda _: None))  # for which no silence is too short
                wait_until(lambda: len(fenced_beats()) >= 2)
                yield next(receipts)
                raise AssertionError("it went on")
            finally:
                ended.append(self)

    seen: set[str] = set()

    def fenced_beats() -> set[str]:
        """Heartbeats of the first run after the other took over; a beat ends with a look at who else is there."""
        seen.update(key for key in store.keys("_rankmill/lease") if "/00000001.beat-" in key)
        return seen

    job = batch.prepare(settings_for(source, tmp_path / "out", model, storage={"lease_seconds": 0.4}))
    with pytest.raises(OutputBusyError, match="out was taken over by a live run, process "):
        batch.run(job, Paused())
    assert len(ended) == 1, "its workers were given back"
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert look(store) == Sighting(2)
    others[0].release()
    summary = run_job(source, tmp_path / "out", model)
    assert 0 < summary.run_pairs < len(rows)
    run_job(source, tmp_path / "undisturbed", model)
    assert read_rankings(tmp_path / "out") == read_rankings(tmp_path / "undisturbed")


def test_the_hold_ends_with_the_run_however_it_ends(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", [*rows, {**rows[0], "text": None}])
    store = Store(str(tmp_path / "out"))
    with pytest.raises(TooManyRejectedError):
        run_job(source, tmp_path / "out", model, max_rejected=0)
    assert look(store) == Sighting(1, released=True)
    run_job(source, tmp_path / "out", model, max_rejected=1)
    assert look(store) == Sighting(2, released=True)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_job_on_ray_through_a_store_that_fails(tmp_path: Path, model: Path, rows: list[Row], s3: S3Bucket) -> None:
    """F5, F7: one request in twelve fails; the endpoint is known to driver and workers from the flag alone."""
    source = write_parquet(tmp_path / "in.parquet", rows)
    storm = FaultProxy(s3.endpoint, probability=0.08, seed=11)
    with running_fault_proxy(storm) as proxy, polled(s3.uri("out"), s3.endpoint):
        storage = {"endpoint": proxy.url, "retry_seconds": 60}
        run_on_ray(source, s3.uri("out"), model, workers=1, cpus_per_worker=1, storage=storage)
        written = {path.rpartition("/")[2] for method, path, _ in proxy.requests if method == "PUT"}
        assert {"part-000000.parquet", "000000.json", "_SUCCESS"} <= written
        assert sum(proxy.struck().values()) >= 3
    run_job(source, tmp_path / "undisturbed", model)
    keys = ("query_id", "doc_id", "rank")
    found, expected = read_rankings(s3.uri("out")), read_rankings(tmp_path / "undisturbed")
    assert [[row[key] for key in keys] for row in found] == [[row[key] for key in keys] for row in expected]
