"""The parts of `rankmill bench` that need no Ray."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rankmill import __version__
from rankmill.bench.job import passed_on
from rankmill.bench.machine import versions
from rankmill.bench.pairs import write_repeated
from rankmill.settings.bench import BenchSettings
from rankmill.settings.load import load_settings
from rankmill.settings.rerank import RerankSettings


def test_grown_input_has_queries_of_its_own_wherever_the_column_stands(tmp_path: Path) -> None:
    pairs = pa.table({"text": ["a", "b", "c"], "query_id": [1, 1, 2], "query": ["q", "q", "r"], "doc_id": [1, 2, 1]})
    write_repeated(pairs, 3, tmp_path / "grown.parquet")
    grown = pq.read_table(tmp_path / "grown.parquet")
    assert grown.column_names == pairs.column_names
    assert grown.column("text").to_pylist() == ["a", "b", "c"] * 3
    assert grown.column("query_id").to_pylist() == ["0-1", "0-1", "0-2", "1-1", "1-1", "1-2", "2-1", "2-1", "2-2"]


def test_versions_need_no_installed_rankmill() -> None:
    assert versions()["rankmill"] == __version__
    assert {"torch", "ray"} < set(versions())


def test_the_job_is_asked_for_the_same_scorer() -> None:
    given = BenchSettings(model="m", max_length=64, trust_remote_code=True, batch_tokens="auto", workers=3)
    for settings in (BenchSettings(), given):
        flags = ["--input", "i", "--output", "o", *passed_on(settings)]
        job = load_settings(RerankSettings, flags, "rankmill rerank")
        for name in ("model", "max_length", "trust_remote_code", "batch_tokens", "precision", "engine"):
            assert getattr(job, name) == getattr(settings, name)
        assert job.workers == (settings.workers and (settings.workers, settings.workers))
