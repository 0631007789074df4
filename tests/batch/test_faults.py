"""Faults inside a run, on Ray: rows that end the process they are in, models that raise, connections that break.

The numbers are those of the fault table: F2 a killed worker, F14 a row that raises, F15 a row that kills its worker.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rankmill.batch.pipeline import RayData
from rankmill.batch.workers import Pool
from rankmill.cli.main import main
from rankmill.errors import TooManyRejectedError
from tests.batch.conftest import Row, write_parquet
from tests.batch.jobs import read_rankings, read_rejected, run_job, run_on_ray

SCORER = "python:tests.batch.crashing_scorers:score"

pytestmark = pytest.mark.usefixtures("local_ray", "reader")

Spoil = Callable[[dict[str, str]], Path]


@pytest.fixture
def spoilt(tmp_path: Path, rows: list[Row]) -> Spoil:
    """Writes the input with words added to the texts of some documents."""

    def write(words: dict[str, str]) -> Path:
        spoilt = [{**row, "text": f"{row['text']} {words.get(row['doc_id'], '')}"} for row in rows]
        return write_parquet(tmp_path / "in.parquet", spoilt)

    return write


def scores(output: Path) -> list[tuple[str, str, float]]:
    return [(row["query_id"], row["doc_id"], row["score"]) for row in read_rankings(output)]


def without(source: Path, rows: list[Row], lost: set[str], folder: Path) -> list[tuple[str, str, float]]:
    """What an undisturbed job makes of the input without some documents."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - only here

    kept = [row for row in pq.read_table(source).to_pylist() if row["doc_id"] not in lost]
    assert len(kept) == len(rows) - len(lost)
    run_job(write_parquet(folder / "kept.parquet", kept), folder / "undisturbed", SCORER)
    return scores(folder / "undisturbed")


@pytest.mark.slow
def test_rows_that_kill_the_process_are_found_and_rejected(tmp_path: Path, rows: list[Row], spoilt: Spoil) -> None:
    """F15: an exit, a segfault, and two in one shard; every other row is scored."""
    bad = {"d2-3": "EXIT", "d1-0": "SEGFAULT", "d1-2": "EXIT"}  # of short queries: each half of a shard costs a process
    source = spoilt(bad)
    summary = run_on_ray(source, tmp_path / "out", SCORER, max_rejected="3", shard_pairs=1)
    assert (summary.totals.pairs_in, summary.totals.rejected) == (len(rows), 3)
    rejected = read_rejected(tmp_path / "out").to_pylist()
    assert {(row["doc_id"], row["reason"]) for row in rejected} == {(doc, "worker_crash") for doc in bad}
    details = {row["doc_id"]: row["detail"] for row in rejected}
    assert "ended with exit code 3" in details["d2-3"]
    assert "was killed by SIGSEGV" in details["d1-0"]
    assert scores(tmp_path / "out") == without(source, rows, set(bad), tmp_path)


def test_a_row_that_makes_the_model_raise_is_rejected(tmp_path: Path, rows: list[Row], spoilt: Spoil) -> None:
    """F14."""
    source = spoilt({"d0-0": "RAISE"})  # the only candidate of its query
    run_on_ray(source, tmp_path / "out", SCORER, max_rejected="1", shard_pairs=1)
    rejected = read_rejected(tmp_path / "out").to_pylist()
    assert [(row["doc_id"], row["reason"], row["detail"]) for row in rejected] == [
        ("d0-0", "model_error", "ValueError: no score for this text")
    ]
    assert scores(tmp_path / "out") == without(source, rows, {"d0-0"}, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["EXIT-ONCE", "CUDA-ONCE", "RESET-ONCE"])
def test_what_passes_costs_no_row(tmp_path: Path, rows: list[Row], spoilt: Spoil, what: str) -> None:
    """F2: a process that dies once, a CUDA error that spoils it, a connection that breaks once."""
    source = spoilt({"d8-3": f"{what}={tmp_path / 'once'}"})
    summary = run_on_ray(source, tmp_path / "out", SCORER, max_rejected="0")
    assert (tmp_path / "once").exists()
    assert (summary.totals.scored, summary.totals.rejected) == (len(rows), 0)


def test_a_model_that_always_raises_fails_the_job_with_its_own_error(tmp_path: Path, spoilt: Spoil) -> None:
    source = spoilt({f"d12-{number}": "RAISE" for number in range(25)})
    with pytest.raises(Exception, match="no score for this text") as failure:
        run_on_ray(source, tmp_path / "out", SCORER, max_rejected="100%")
    assert "ValueError" in str(failure.value)
    assert not (tmp_path / "out" / "_SUCCESS").exists()


@pytest.mark.slow
def test_a_model_that_kills_every_process_fails_the_job_in_words(tmp_path: Path, spoilt: Spoil) -> None:
    source = spoilt({f"d12-{number}": "EXIT" for number in range(25)})
    with pytest.raises(TooManyRejectedError) as failure:
        run_on_ray(source, tmp_path / "out", SCORER, max_rejected="100%")
    assert "more than 16 rows, or lists, of which each ends the process that works on it" in str(failure.value)
    assert "exit code 3" in str(failure.value)
    assert str(failure.value).endswith("finished shards are kept.")  # and nothing of Ray's


@pytest.mark.slow
def test_a_row_that_hangs_is_found_and_rejected(tmp_path: Path, rows: list[Row], spoilt: Spoil) -> None:
    """F15, of the other kind: the forward pass never returns."""
    source = spoilt({"d1-1": "HANG"})
    summary = run_on_ray(source, tmp_path / "out", SCORER, max_rejected="1", shard_pairs=1, forward_timeout=10)
    assert (summary.totals.pairs_in, summary.totals.rejected) == (len(rows), 1)
    [rejected] = read_rejected(tmp_path / "out").to_pylist()
    assert (rejected["doc_id"], rejected["reason"]) == ("d1-1", "no_answer")
    assert "after 10 s without a sign of life" in rejected["detail"]
    assert scores(tmp_path / "out") == without(source, rows, {"d1-1"}, tmp_path)


@pytest.mark.slow
def test_workers_are_released_after_a_failure(tmp_path: Path, spoilt: Spoil) -> None:
    """A job in the same process, or the next one on the cluster, must find the accelerators free."""
    with pytest.raises(TooManyRejectedError):
        run_on_ray(spoilt({"d8-3": "RAISE"}), tmp_path / "out", SCORER, workers=(2, 2), max_rejected="0")
    run_on_ray(spoilt({}), tmp_path / "other", SCORER, workers=(2, 2))  # would wait for ever


@pytest.mark.slow
def test_nothing_finished_for_too_long_ends_the_job(
    tmp_path: Path, spoilt: Spoil, capfd: pytest.CaptureFixture[str]
) -> None:
    """Exit code 6, with the stacks of the driver and of the process that hangs."""
    command = ["rerank", "--input", str(spoilt({"d8-3": "HANG"})), "--output", str(tmp_path / "out")]
    command += ["--model", SCORER, "--shard-pairs", "20", "--no-progress-timeout", "20"]
    assert main([*command, "--quiet"]) == 6
    message = capfd.readouterr().err
    assert "No shard was finished for 20 s" in message
    assert "in _obey" in message
    kept = (tmp_path / "out" / "_rankmill").glob("stacks-*.txt")
    text = next(kept).read_text()
    assert "in _obey" in text
    assert "run_shards" in text
    run_on_ray(spoilt({}), tmp_path / "other", SCORER)  # the hanging process holds nothing any more


def test_machines_that_are_waited_for_are_named() -> None:
    """On a cluster that grows, nothing is finished for a while and nothing is wrong."""
    pool = Pool(1, 8, cpus=0, gpus=1, device="cuda", threads=None)
    assert RayData(pool).missing() == (
        "Waiting for machines: a scoring worker needs 1 GPU; the cluster has 3 CPU, 0 GPU now."
    )
    assert RayData(replace(pool, gpus=0, cpus=3)).missing() is None
