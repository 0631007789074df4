"""Whole processes and machines that go: F2 a killed worker, F3 a lost machine, F23 SIGTERM."""

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

from tests.batch.conftest import Row, write_parquet
from tests.batch.jobs import read_rankings, run_job
from tests.cluster.processes import end_all_with, pids_with, psutil

pytestmark = pytest.mark.slow

SCORER = "python:tests.batch.crashing_scorers:score"
_TAG = "RANKMILL_TEST_TAG"


@pytest.fixture
def source(tmp_path: Path, rows: list[Row]) -> Path:
    """Some 30 shards of a second each."""
    many = [
        {**row, "query_id": f"{copy}-{row['query_id']}", "text": f"{row['text']} SLOW"}
        for copy in range(4)
        for row in rows
    ]
    return write_parquet(tmp_path / "in.parquet", many)


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


def model_processes(tag: str) -> list[int]:
    """The processes in which the model runs."""
    return [pid for pid in pids_with(_TAG, tag) if "rankmill.batch import child" in " ".join(_command(pid))]


def _command(pid: int) -> list[str]:
    try:
        return list(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return []


def test_a_killed_model_process_is_replaced(tmp_path: Path, source: Path) -> None:
    """F2, as the kernel's OOM killer does it: SIGKILL to the largest process."""
    with started(rerank(source, tmp_path / "out")) as (process, tag):
        wait_for_commits(tmp_path / "out", 2, process)
        for pid in model_processes(tag):
            os.kill(pid, signal.SIGKILL)
        _, log = process.communicate(timeout=240)
    assert process.returncode == 0, log
    run_job(source, tmp_path / "undisturbed", SCORER)
    assert read_rankings(tmp_path / "out") == read_rankings(tmp_path / "undisturbed")


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_asked_to_stop_it_leaves_within_seconds_and_nothing_stays(
    tmp_path: Path, source: Path, stop: signal.Signals, code: int
) -> None:
    """F23: a spot notice, `ray job stop`, Ctrl-C."""
    with started(rerank(source, tmp_path / "out")) as (process, tag):
        wait_for_commits(tmp_path / "out", 2, process)
        process.send_signal(stop)
        _, log = process.communicate(timeout=20)  # it gives itself nine seconds; the rest is for busy machines
        deadline = time.monotonic() + 30
        while model_processes(tag):
            assert time.monotonic() < deadline, "the model's processes hold their accelerators"
            time.sleep(0.1)
    assert process.returncode == code, log
    assert "run the same command to continue" in log
    assert "Traceback" not in log
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    summary = run_job(source, tmp_path / "out", SCORER)
    assert 0 < summary.run_pairs < summary.totals.pairs_in
    run_job(source, tmp_path / "undisturbed", SCORER)
    assert read_rankings(tmp_path / "out") == read_rankings(tmp_path / "undisturbed")


_CLUSTER = """
import os, signal, sys, threading, time
from pathlib import Path
source, output, model = sys.argv[1:]
os.environ.update(RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")
from ray.cluster_utils import Cluster
from rankmill.cli.rerank import rerank
from rankmill.settings.rerank import RerankSettings

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
lost = cluster.add_node(num_cpus=2)

def kill_a_machine():
    while len(list(Path(output).glob("_rankmill/commits/*.json"))) < 3:
        time.sleep(0.02)
    (raylet,) = lost.all_processes["raylet"]
    os.kill(raylet.process.pid, signal.SIGKILL)
    Path(output, "..", "killed").touch()

threading.Thread(target=kill_a_machine, daemon=True).start()
summary = rerank(RerankSettings(input=source, output=output, model=model, shard_pairs=20, workers=(3, 3),
                                gpus_per_worker=0, max_rejected="0", address=cluster.address))
assert summary.totals.rejected == 0
cluster.shutdown()
"""


def test_a_lost_machine_costs_no_row(tmp_path: Path, source: Path) -> None:
    """F3: the raylet of one of two machines is killed while both score."""
    with started(["-c", _CLUSTER, str(source), str(tmp_path / "out"), SCORER]) as (process, _):
        _, log = process.communicate(timeout=280)
    assert process.returncode == 0, log
    assert (tmp_path / "killed").exists()
    run_job(source, tmp_path / "undisturbed", SCORER)
    assert read_rankings(tmp_path / "out") == read_rankings(tmp_path / "undisturbed")
