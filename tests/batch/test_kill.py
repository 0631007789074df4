"""SIGKILL, which no process can prepare for: of the driver, and of a scoring worker."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rankmill.batch.recorded import read
from rankmill.batch.verify import verify
from rankmill.storage.store import Store
from tests.batch.conftest import Row, write_parquet
from tests.batch.jobs import read_rankings, run_job
from tests.cluster.processes import end_all_with, pids_with, psutil

pytestmark = pytest.mark.slow

_TAG = "RANKMILL_TEST_TAG"
_SCORER = "ray::MapWorker(MapBatches(GuardedScore))"


@contextmanager
def rerank_process(source: Path, output: Path, model: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`rankmill rerank` with its own Ray, and the tag that all of its processes inherit; none outlives the block."""
    tag = secrets.token_hex(8)
    command = [sys.executable, "-m", "rankmill", "rerank", "--input", source, "--output", output]
    command += ["--model", model, "--shard-pairs", "20", "--workers", "1"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {_TAG: tag}
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield process, tag
    finally:
        process.kill()
        process.communicate()
        end_all_with(_TAG, tag)


def wait_for_commits(output: Path, count: int, process: subprocess.Popen[str]) -> set[str]:
    """Names of the committed shards, once there are `count`."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        commits = {path.stem for path in output.glob("_rankmill/commits/*.json")}
        if len(commits) >= count:
            return commits
        time.sleep(0.02)
    raise AssertionError(f"{count} commits were awaited; the process ended with {process.poll()}")


def assert_same(output: Path, undisturbed: Path) -> None:
    """The same rankings; logits up to the rounding that another number of threads brings."""
    found, expected = read_rankings(output), read_rankings(undisturbed)
    keys = ("query_id", "rank", "doc_id", "retrieval_rank", "truncated")
    assert [[row[key] for key in keys] for row in found] == [[row[key] for key in keys] for row in expected]
    assert [row["logit"] for row in found] == pytest.approx([row["logit"] for row in expected], abs=1e-5)


@pytest.fixture
def source(tmp_path: Path, rows: list[Row]) -> Path:
    """Some 170 shards."""
    many = [{**row, "query_id": f"{copy}-{row['query_id']}"} for copy in range(20) for row in rows]
    return write_parquet(tmp_path / "in.parquet", many)


def test_a_killed_driver_loses_nothing(tmp_path: Path, model: Path, source: Path) -> None:
    with rerank_process(source, tmp_path / "out", model) as (process, _):
        committed = wait_for_commits(tmp_path / "out", 5, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    before = {shard: (tmp_path / "out" / f"part-{shard}.parquet").stat().st_mtime_ns for shard in committed}
    summary = run_job(source, tmp_path / "out", model)
    assert 0 < summary.run_pairs < summary.totals.pairs_in
    assert before == {shard: (tmp_path / "out" / f"part-{shard}.parquet").stat().st_mtime_ns for shard in committed}
    assert verify(read(Store(str(tmp_path / "out"))), deep=True).whole
    run_job(source, tmp_path / "undisturbed", model)
    assert_same(tmp_path / "out", tmp_path / "undisturbed")


def test_a_killed_scoring_worker_is_replaced(tmp_path: Path, model: Path, source: Path) -> None:
    with rerank_process(source, tmp_path / "out", model) as (process, tag):
        wait_for_commits(tmp_path / "out", 5, process)
        scorers = [pid for pid in pids_with(_TAG, tag) if " ".join(psutil.Process(pid).cmdline()).startswith(_SCORER)]
        assert len(scorers) == 1
        os.kill(scorers[0], signal.SIGKILL)
        _, log = process.communicate(timeout=240)
    assert process.returncode == 0, log
    run_job(source, tmp_path / "undisturbed", model)
    assert_same(tmp_path / "out", tmp_path / "undisturbed")
