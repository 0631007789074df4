"""What is decided before any worker starts, so that no worker decides it for itself."""

import time
from pathlib import Path

import pytest

from rankmill.batch import job as batch
from rankmill.batch.executor import InProcess
from tests.batch.conftest import Row, write_parquet
from tests.batch.jobs import settings_for


@pytest.mark.parametrize(
    ("settings", "precision"),
    [
        ({"gpus_per_worker": 1}, "bfloat16"),  # whether or not this machine has a GPU
        ({"gpus_per_worker": 0.25}, "bfloat16"),
        ({"gpus_per_worker": 0}, "float32"),
        ({"gpus_per_worker": 1, "precision": "float16"}, "float16"),
    ],
)
def test_the_precision_follows_the_workers_that_were_asked_for(
    settings: dict[str, object], precision: str, tmp_path: Path, model: Path, rows: list[Row]
) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows)
    job = batch.prepare(settings_for(source, tmp_path / "out", model, **settings))
    assert (job.scorer.precision, job.card.precision) == (precision, precision)


def test_by_default_the_precision_follows_this_machine(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    job = batch.prepare(settings_for(write_parquet(tmp_path / "in.parquet", rows), tmp_path / "out", model))
    assert job.scorer.precision == job.card.precision != "auto"


def test_the_time_of_a_run_begins_with_its_checks(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    """What comes between them and `run`, such as Ray's start, counts too: a person waits for it."""
    job = batch.prepare(settings_for(write_parquet(tmp_path / "in.parquet", rows), tmp_path / "out", model))
    time.sleep(0.5)
    summary = batch.run(job, InProcess())
    assert summary.seconds > 0.5 + summary.pipeline_seconds


def test_a_model_without_files_stays_what_it_is_called(
    tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_for_prepare.py").write_text("def score(queries, texts):\n    return [0.0 for _ in texts]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    source = write_parquet(tmp_path / "in.parquet", rows)
    job = batch.prepare(settings_for(source, tmp_path / "out", "python:mine_for_prepare:score"))
    assert job.card.folder is None
    assert job.scorer.model == "python:mine_for_prepare:score"
    assert job.scorer.precision != "auto"
