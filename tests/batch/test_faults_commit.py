"""A driver that is killed, or whose store fails, at each step of the protocol; on S3, a reader looking on.

The proxy in front of the store kills the driver at a request: before the store has seen it, or after the store acted on
it and before the driver can know. No hook in the library is needed for that, and none could be forgotten there.
"""

import multiprocessing
import os
import re
import resource
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from rankmill.batch import output
from rankmill.batch.recorded import read
from rankmill.batch.verify import verify
from rankmill.errors import RankmillError, StorageError
from rankmill.settings.storage import StorageSettings
from rankmill.storage.store import Store
from tests.batch import counting_scorer
from tests.batch.conftest import Row, write_parquet
from tests.batch.jobs import read_rankings, run_job
from tests.batch.reader import polled
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


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Processes that have everything imported when they start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.batch.jobs", "tests.batch.counting_scorer", "rankmill.scoring.load"])
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


def drive(environment: Mapping[str, str], source: Path, target: str, endpoint: str) -> None:
    """What the process does that is to be killed."""
    os.environ.update(environment)
    rerank(source, target, storage={"endpoint": endpoint})


def exit_code_of(process: BaseProcess) -> int | None:
    """Run a process to its end; the process does not outlive the call."""
    process.start()
    try:
        process.join(200)
        return process.exitcode
    finally:
        process.kill()
        process.join()


def assert_whole(target: str | Path, undisturbed: list[Row]) -> None:
    assert verify(read(Store(str(target))), deep=True).whole
    assert read_rankings(target) == undisturbed


@pytest.mark.parametrize("step", ["nothing", *STEPS])
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


def write_on_a_full_disk(source: Path, target: Path, message: Path) -> None:
    """Files cannot grow beyond the first kilobytes, as on a disk that is full; Python ignores the signal for it."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, resource.RLIM_INFINITY))
    try:
        rerank(source, target)
    except RankmillError as error:
        message.write_text(str(error))
        sys.exit(error.exit_code)


def test_a_full_disk_ends_the_job_in_words(
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
