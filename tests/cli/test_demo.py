"""The parts of `rankmill demo` that need no Ray."""

from pathlib import Path

import pytest

from rankmill.batch import job as batch
from rankmill.batch.executor import InProcess
from rankmill.batch.summary import JobSummary
from rankmill.cli import demo
from rankmill.errors import OutputConflictError
from rankmill.settings.rerank import RerankSettings
from tests.batch.conftest import write_parquet
from tests.batch.jobs import read_rankings, settings_for
from tests.tiny_models import save_tiny_model


def in_process(settings: RerankSettings) -> JobSummary:
    job = batch.prepare(settings)
    return batch.already_complete(job) or batch.run(job, InProcess())


def test_rankings_of_an_older_model_or_python_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "rerank", in_process)
    rows = [{"query_id": "q", "query": "fox", "doc_id": f"d{n}", "text": f"dog {n}"} for n in range(3)]
    source = write_parquet(tmp_path / "in.parquet", rows)
    model, folder = save_tiny_model(tmp_path / "model", "bert"), tmp_path / "reranked"
    job = settings_for(source, folder, model)
    assert not demo.reranked(job, folder).already_complete
    assert demo.reranked(job, folder).already_complete
    write_parquet(source, rows[:2])
    summary = demo.reranked(job, folder)
    assert (summary.already_complete, summary.totals.pairs_in) == (False, 2)
    assert len(read_rankings(folder)) == 2


def test_what_is_not_the_demonstrations_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "rerank", in_process)
    row = {"query_id": "q", "query": "fox", "doc_id": "d", "text": "dog"}
    source = write_parquet(tmp_path / "in.parquet", [row])
    folder = tmp_path / "reranked"
    folder.mkdir()
    (folder / "thesis.docx").write_text("precious")
    with pytest.raises(OutputConflictError, match=r"thesis\.docx"):
        demo.reranked(settings_for(source, folder, save_tiny_model(tmp_path / "model", "bert")), folder)
    assert (folder / "thesis.docx").read_text() == "precious"
