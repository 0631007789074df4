"""Whole processes that go, on one machine; `test_torture.py` has several, and kills at random."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pytest

from rankmill.batch.recorded import read
from rankmill.batch.verify import verify
from rankmill.storage.store import Store
from tests.batch.conftest import Row, write_parquet
from tests.batch.jobs import read_rankings, run_job, run_on_ray
from tests.batch.reader import polled
from tests.cluster.processes import command_of, end_all_with, pids_with, process_at
from tests.conftest import S3Bucket
from tests.fault_proxy import Fault, FaultProxy, Kind, running_fault_proxy

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("reader")]

SCORER = "python:tests.batch.crashing_scorers:score"
MODEL = "rankmill.batch import child"
ACTOR = "ray::MapWorker(MapBatches(ScoreAndWrite))"
_TAG = "RANKMILL_TEST_TAG"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> Path:
    """Some 30 shards of a third of a second each."""
    many = [
        {**row, "query_id": f"{copy}-{row['query_id']}", "text": f"{row['text']} {'' if number % 3 else 'SLOW'}"}
        for copy in range(4)
        for number, row in enumerate(rows)
    ]
    return write_parquet(tmp_path_factory.mktemp("in") / "in.parquet", many)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, source: Path) -> list[Row]:
    folder = tmp_path_factory.mktemp("undisturbed")
    run_job(source, folder, SCORER)
    return read_rankings(folder)


@contextmanager
def started(command: list[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process and the tag that all processes it starts inherit; none outlives the block."""
    tag = secrets.token_hex(8)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {_TAG: tag, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield process, tag
    finally:
        process.kill()
        process.communicate()
        end_all_with(_TAG, tag)


def rerank(source: Path, output: Path) -> list[str]:
    command = ["-m", "rankmill", "rerank", "--input", str(source), "--output", str(output), "--model", SCORER]
    return [*command, "--shard-pairs", "20", "--workers", "2", "--max-rejected", "0"]


def wait_for_commits(output: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while len(list(output.glob("_rankmill/commits/*.json"))) < count:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def processes(tag: str, words: str) -> list[int]:
    """Those whose command line has these words."""
    return [pid for pid in pids_with(_TAG, tag) if words in " ".join(command_of(pid))]


def test_a_killed_driver_loses_nothing(tmp_path: Path, source: Path, undisturbed: list[Row]) -> None:
    """F1, on Ray."""
    with started(rerank(source, tmp_path / "out")) as (process, _):
        wait_for_commits(tmp_path / "out", 5, process)
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    summary = run_job(source, tmp_path / "out", SCORER)
    assert 0 < summary.run_pairs < summary.totals.pairs_in
    assert verify(read(Store(str(tmp_path / "out"))), deep=True).whole
    assert read_rankings(tmp_path / "out") == undisturbed


def test_killed_processes_are_replaced(tmp_path: Path, source: Path, undisturbed: list[Row]) -> None:
    """F2, as the kernel's OOM killer does it: SIGKILL to those in which the model runs, later to what started them."""
    with started(rerank(source, tmp_path / "out")) as (process, tag):
        for commits, words in ((2, MODEL), (5, ACTOR)):
            wait_for_commits(tmp_path / "out", commits, process)
            victims = processes(tag, words)
            assert victims
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
        _, log = process.communicate(timeout=240)
    assert process.returncode == 0, log
    assert read_rankings(tmp_path / "out") == undisturbed


@pytest.mark.usefixtures("local_ray")
def test_a_worker_killed_at_any_step_of_a_shard_is_replaced(tmp_path: Path, rows: list[Row], s3: S3Bucket) -> None:
    """F2, F20: SIGKILL to whoever reads, or writes, before the store has seen the request or after it acted on it."""
    rows = [{**row, "text": None} if row["doc_id"] == "d4-2" else row for row in rows]
    source = write_parquet(tmp_path / "in.parquet", rows)
    client = boto3.client("s3")
    client.upload_file(str(source), s3.bucket, "in.parquet")
    client.close()
    killed: list[str] = []
    with running_fault_proxy(FaultProxy(s3.endpoint)) as proxy, polled(s3.uri("out"), s3.endpoint):

        def killing(kind: Kind, method: str, path: str) -> Fault:
            fault = Fault(kind, method, path)

            def kill() -> None:
                killed.append("")
                with suppress(LookupError, ProcessLookupError):  # its other thread may have met a fault just before
                    victim = process_at(fault.port)
                    assert victim != os.getpid()
                    killed[-1] = " ".join(command_of(victim))
                    os.kill(victim, signal.SIGKILL)

            fault.then = kill
            return fault

        def begin() -> None:
            """What is read from now on is read by workers: the plan is made."""
            proxy.faults += [
                killing("reset_before", "GET", "/in.parquet"),
                killing("reset_after", "PUT", "/out/_rejected/part-"),
                killing("reset_before", "PUT", "/out/part-000002"),
                killing("reset_after", "PUT", "/out/part-000004"),
                killing("reset_after", "PUT", "/out/_rankmill/commits/000006"),
            ]

        proxy.faults.append(Fault("reset_after", "PUT", "/out/_rankmill/job.json", then=begin))
        storage = {"endpoint": proxy.url}
        summary = run_on_ray(s3.uri("in.parquet"), s3.uri("out"), SCORER, workers=1, max_rejected="1", storage=storage)
    assert len(killed) == 5
    assert [words for words in killed if words and not words.startswith("ray::")] == []
    assert sum(map(bool, killed)) >= 3
    assert (summary.totals.pairs_in, summary.totals.rejected) == (len(rows), 1)
    assert verify(read(Store(s3.uri("out"))), deep=True).whole
    run_job(source, tmp_path / "undisturbed", SCORER, max_rejected="1")
    assert read_rankings(s3.uri("out")) == read_rankings(tmp_path / "undisturbed")


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop_it_leaves_within_seconds_and_nothing_stays(
    tmp_path: Path, source: Path, undisturbed: list[Row], stop: signal.Signals, code: int
) -> None:
    """F23: a spot notice, `ray job stop`, Ctrl-C."""
    with started(rerank(source, tmp_path / "out")) as (process, tag):
        wait_for_commits(tmp_path / "out", 2, process)
        process.send_signal(stop)
        _, log = process.communicate(timeout=20)  # it gives itself nine seconds; the rest is for busy machines
        deadline = time.monotonic() + 30
        while processes(tag, MODEL):
            assert time.monotonic() < deadline, "the model's processes hold their accelerators"
            time.sleep(0.1)
    assert process.returncode == code, log
    assert "run the same command to continue" in log
    assert "Traceback" not in log
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    summary = run_job(source, tmp_path / "out", SCORER)
    assert 0 < summary.run_pairs < summary.totals.pairs_in
    assert read_rankings(tmp_path / "out") == undisturbed
