"""A driver that is killed, or whose store fails, at each step of the protocol; on S3, a reader looking on.

The proxy in front of the store kills the driver at a request: before the store has seen it, or after the store acted on
it and before the driver can know. No hook in the library is needed for that, and none could be forgotten there.
"""

import multiprocessing
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from rankmill.batch import output
from rankmill.batch.recorded import read
from rankmill.batch.verify import verify
from rankmill.errors import OutputBusyError, RankmillError, StorageError
from rankmill.settings.storage import StorageSettings
from rankmill.storage.store import Store
from tests.batch import counting_scorer
from tests.batch.conftest import Row, write_parquet
from tests.batch.jobs import read_rankings, run_job
from tests.batch.reader import polled
from tests.batch.small_disk import small_disk
from tests.conftest import S3Bucket
from tests.fault_proxy import Fault, FaultProxy, running_fault_proxy

SCORER = "python:tests.batch.counting_scorer:score"
STEPS = {
    "the plan": "_rankmill/plan.parquet",
    "the job record": "_rankmill/job.json",
    "the lease": "_rankmill/lease/00000001.json",
    "rejected rows": "_rejected/part-",
    "the first part": "part-000000.parquet",
    "the third part": "part-000002.parquet",
    "the third commit": "_rankmill/commits/000002.json",
    "the last commit": "_rankmill/commits/000004.json",
    "the manifest": "_rankmill/manifest.json",
    "the marker": "_SUCCESS",
}
"""What a job writes, in this order."""

QUICK = ("the third part", "the manifest", "the marker")
"""Steps that differ most in what is left to do: a part to adopt, a marker to write, nothing."""


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that have everything imported when they start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "rankmill.scoring.load"])
    return context


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> Path:
    """Five shards of eight pairs or so; one row of the third has no text."""
    few = [{**row, "text": None} if row["doc_id"] == "d4-2" else row for row in rows[:36]]
    return write_parquet(tmp_path_factory.mktemp("in") / "in.parquet", few)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, source: Path) -> list[Row]:
    """What comes out when nothing goes wrong."""
    folder = tmp_path_factory.mktemp("undisturbed")
    rerank(source, folder)
    return read_rankings(folder)


@pytest.fixture
def proxy(s3: S3Bucket) -> Iterator[FaultProxy]:
    with running_fault_proxy(FaultProxy(s3.endpoint)) as running:
        yield running


def rerank(source: Path, target: str | Path, **settings: Any) -> Any:
    return run_job(source, target, SCORER, shard_pairs=8, max_rejected=1, **settings)


def drive(environment: Mapping[str, str], source: Path, target: str, endpoint: str, lease_seconds: float = 30) -> None:
    """What the process does that is to be killed, or stopped."""
    os.environ.update(environment)
    try:
        rerank(source, target, storage={"endpoint": endpoint, "lease_seconds": lease_seconds})
    except RankmillError as error:
        sys.exit(error.exit_code)


@contextmanager
def running(process: BaseProcess) -> Iterator[BaseProcess]:
    """A process that is started, and does not outlive the block."""
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def exit_code_of(process: BaseProcess) -> int | None:
    """Run a process to its end."""
    with running(process):
        process.join(200)
        return process.exitcode


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_whole(target: str | Path, undisturbed: list[Row]) -> None:
    assert verify(read(Store(str(target))), deep=True).whole
    assert read_rankings(target) == undisturbed


@pytest.mark.parametrize(
    "step", [pytest.param(step, marks=[] if step in QUICK else pytest.mark.slow) for step in ("nothing", *STEPS)]
)
def test_a_driver_killed_after_any_step_is_continued(
    step: str, source: Path, undisturbed: list[Row], s3: S3Bucket, proxy: FaultProxy, processes: ForkServerContext
) -> None:
    """F1, F20: no pair of a committed shard is scored again, and no file is written twice."""
    target = s3.uri("out")
    driver = processes.Process(target=drive, args=(s3.environment, source, target, proxy.url))
    fault = Fault("reset_after", "PUT", f"/out/{STEPS[step]}") if step in STEPS else Fault("reset_before", "PUT")
    proxy.faults.append(replace(fault, then=driver.kill))
    with polled(target, s3.endpoint):
        assert exit_code_of(driver) == -9, f"{step} was written by nobody"
        kept = output.finished_shards(Store(target))
        finished = Store(target).head(output.SUCCESS) is not None
        assert finished == (step == "the marker")
        counting_scorer.asked.clear()
        summary = rerank(source, target)
    assert summary.already_complete == finished
    assert len(counting_scorer.asked) == summary.totals.scored - sum(receipt.scored for receipt in kept.values())
    assert_whole(target, undisturbed)


def test_every_answer_may_get_lost(source: Path, undisturbed: list[Row], s3: S3Bucket, proxy: FaultProxy) -> None:
    """F7, F20: what the job wrote itself is never taken for another's."""
    proxy.faults += [Fault("reset_after", "PUT", f"/out/{path}") for path in STEPS.values()]
    with polled(s3.uri("out"), s3.endpoint):
        summary = rerank(source, s3.uri("out"), storage={"endpoint": proxy.url})
    assert [fault.hits for fault in proxy.faults] == [1] * len(STEPS)
    assert (summary.totals.pairs_in, summary.totals.rejected) == (36, 1)
    assert_whole(s3.uri("out"), undisturbed)


def test_a_run_that_was_stopped_comes_back_too_late(
    source: Path, undisturbed: list[Row], s3: S3Bucket, proxy: FaultProxy, processes: ForkServerContext
) -> None:
    """F10, F11, F20: SIGSTOP before a part; another run takes over; then the part arrives, with other last bits."""
    target, part, others = s3.uri("out"), f"/{s3.bucket}/out/part-000002.parquet", "/out/_rankmill/lease/00000002.json"
    environment = {**s3.environment, counting_scorer.SHIFT: "0.001"}
    zombie = processes.Process(target=drive, args=(environment, source, target, proxy.url, 2))
    stopped = threading.Event()

    def stop() -> None:
        os.kill(zombie.pid or 0, signal.SIGSTOP)
        stopped.set()

    proxy.faults += [Fault("reset_before", "PUT", part, then=stop), Fault("slow_down", "PUT", part, times=1_000_000)]

    def has_seen_the_other() -> bool:
        """Whether heartbeats followed upon the one at which it read who the other is."""
        asked = [f"{method} {path}" for method, path, _ in proxy.requests]
        beats = "PUT .*/00000001.beat-"
        return (
            any(others in one for one in asked) and sum(bool(re.match(beats, one)) for one in _after(asked, others)) > 1
        )

    with running(zombie), polled(target, s3.endpoint):
        assert stopped.wait(200)
        summary = rerank(source, target, storage={"lease_seconds": 0.4})
        assert 0 < summary.run_pairs < summary.totals.pairs_in
        kept = Store(target).read("part-000002.parquet")
        os.kill(zombie.pid or 0, signal.SIGCONT)
        wait_until(has_seen_the_other)
        proxy.faults.clear()
        zombie.join(200)
        assert zombie.exitcode == OutputBusyError.exit_code
    assert ("PUT", part, None) in proxy.requests, "it did not come back"
    assert Store(target).read("part-000002.parquet") == kept
    assert verify(read(Store(target)), deep=True).whole
    found = read_rankings(target)
    assert [row["doc_id"] for row in found] == [row["doc_id"] for row in undisturbed]
    assert found != undisturbed, "its parts should differ from those of others"


def _after(items: list[str], words: str) -> list[str]:
    """What comes after the last item that has these words."""
    return items[max(number for number, item in enumerate(items) if words in item) + 1 :]


def test_credentials_that_run_out_for_good_end_the_job(
    source: Path, undisturbed: list[Row], s3: S3Bucket, proxy: FaultProxy
) -> None:
    """F18, F20: asked for again once, then exit code 7; with new ones the same command continues."""
    proxy.faults.append(Fault("expired", "PUT", r"/out/(part|_rejected|_rankmill/commits)", skip=4, times=1_000_000))
    with polled(s3.uri("out"), s3.endpoint):
        with pytest.raises(StorageError, match=r"No permission to write .*ExpiredToken") as failure:
            rerank(source, s3.uri("out"), storage={"endpoint": proxy.url})
        assert failure.value.exit_code == 7
        assert proxy.faults[0].hits == 2
        summary = rerank(source, s3.uri("out"))
    assert 0 < summary.run_pairs < summary.totals.pairs_in
    assert_whole(s3.uri("out"), undisturbed)


def test_a_full_disk_ends_the_job_in_words(tmp_path: Path, source: Path, undisturbed: list[Row]) -> None:
    """F22, F20: with room again, the same command continues."""
    with small_disk(tmp_path / "disk", pages=11) as (disk, make_room), polled(disk / "out"):
        with pytest.raises(
            StorageError, match=rf"Could not write {disk}/out/\S+: .*No space left on device"
        ) as failure:
            rerank(source, disk / "out")
        assert failure.value.exit_code == 7
        assert not list(disk.glob("out/_rankmill/staging/*"))
        assert list(disk.glob("out/_rankmill/commits/*"))
        make_room()
        summary = rerank(source, disk / "out")
        assert 0 < summary.run_pairs < summary.totals.pairs_in
        assert_whole(disk / "out", undisturbed)


def write_on_a_full_disk(source: Path, target: Path, message: Path) -> None:
    """Files cannot grow beyond the first kilobytes, as on a disk that is full; Python ignores the signal for it."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, resource.RLIM_INFINITY))
    try:
        rerank(source, target)
    except RankmillError as error:
        message.write_text(str(error))
        sys.exit(error.exit_code)


@pytest.mark.slow
def test_files_that_cannot_grow_end_the_job_in_words(
    tmp_path: Path, source: Path, undisturbed: list[Row], processes: ForkServerContext
) -> None:
    """F22, F20: with room again, the same command continues."""
    target, message = tmp_path / "out", tmp_path / "message"
    with polled(target):
        writer = processes.Process(target=write_on_a_full_disk, args=(source, target, message))
        assert exit_code_of(writer) == 7
        assert re.search(rf"Could not write {target}/\S+\.parquet: .*File too large", message.read_text())
        assert not list(target.glob("_rankmill/staging/*"))
        rerank(source, target)
    assert_whole(target, undisturbed)


def test_a_listing_and_its_credentials_go_the_same_way(s3: S3Bucket, proxy: FaultProxy) -> None:
    """The proxy of these tests does see the requests: a job that went past it would prove nothing."""
    Store(s3.uri("out"), StorageSettings(endpoint=proxy.url)).create("key", b"")
    assert [(method, path) for method, path, _ in proxy.requests] == [("PUT", f"/{s3.bucket}/out/key")]
