"""`rankmill bench` keeps its last result, and `rankmill plan` counts with it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.batch.last_bench import keep, recall
from rankmill.batch.machine import cpu_name
from rankmill.cli.main import main
from rankmill.scoring.engines.choose import this_machine
from rankmill.scoring.load import check_model
from rankmill.scoring.options import ScorerOptions
from tests.tiny_models import save_tiny_model


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RANKMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("rankmill.bench.matrix._SIZES", {"cpu": 64, "cuda": 64})
    return tmp_path / "cache" / "bench"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), "bert")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    texts = {"query_id": ["q"] * 9, "query": ["a red fox"] * 9, "doc_id": range(9), "text": ["the fox"] * 9}
    pq.write_table(pa.table({name: list(values) for name, values in texts.items()}), tmp_path / "in.parquet")
    return tmp_path / "in.parquet"


def plan(capsys: pytest.CaptureFixture[str], source: Path, *flags: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["plan", "--input", str(source), "--json", *map(str, flags)]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_last_result_is_used_until_a_file_is_given(
    source: Path, model: Path, cache: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    scorer = ("--model", model, "--precision", "float32")
    assert plan(capsys, source, *scorer)["estimate"] is None
    bench = ["bench", "--input", source, "--model", model, "--no-job", "--no-latency", "--rounds", 1, "--json"]
    assert main([*map(str, bench), "--precision", "float32"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert len(list(cache.iterdir())) == 1
    found = plan(capsys, source, *scorer, "--gpu-price", 2)
    assert found["measured_on"] == datetime.now(UTC).date().isoformat()
    assert found["estimate"]["tokens_per_second"] == measured["bare"]["tokens_per_second"]
    assert found["estimate"]["cost"] == pytest.approx(2 * found["estimate"]["unit_hours"])
    assert plan(capsys, source, *scorer, "--max-length", 16)["estimate"] is None, "another scorer"
    assert plan(capsys, source, *scorer[:2], "--precision", "bfloat16")["estimate"] is None, "another precision"
    other = 0 if this_machine().gpus else 1
    assert plan(capsys, source, *scorer, "--gpus-per-worker", other)["estimate"] is None, "another device"
    measured["bare"]["tokens_per_second"], measured["machine"]["date"] = 17.0, "2020-02-02"
    (tmp_path / "bench.json").write_text(json.dumps(measured))
    given = plan(capsys, source, *scorer, "--bench", tmp_path / "bench.json")
    assert (given["estimate"]["tokens_per_second"], given["measured_on"]) == (17, "2020-02-02")
    assert main(["plan", "--input", str(source), *map(str, scorer)]) == 0
    assert f"from bench figures of {found['measured_on']}" in capsys.readouterr().out


def test_a_price_without_a_rate_is_refused(source: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--input", str(source), "--model", str(model), "--gpu-price", "2"]) == 2
    assert "--gpu-price needs a measured rate" in capsys.readouterr().err


def test_figures_of_another_processor_or_damaged_ones_are_left_alone(model: Path, cache: Path) -> None:
    options = ScorerOptions(model=str(model), device="cpu", precision="float32")
    fingerprint = check_model(options).fingerprint
    figures: dict[str, Any] = {
        "model": "m",
        "machine": {"cpu": cpu_name(), "threads": 2},
        "chosen": {"device": "cpu", "precision": "float32"},
        "bare": {"tokens_per_second": 5.0, "peak_bytes": 1},
    }
    keep(fingerprint, "cpu", json.dumps(figures).encode())
    found = recall(fingerprint, options)
    assert found is not None
    assert found.tokens_per_second == 5
    keep(fingerprint, "cpu", json.dumps(figures | {"machine": {"cpu": "another", "threads": 2}}).encode())
    assert recall(fingerprint, options) is None
    keep(fingerprint, "cpu", b"{")
    assert recall(fingerprint, options) is None
    assert len(list(cache.iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RANKMILL_CACHE", str(tmp_path / "file"))
    keep("f", "cpu", b"{}")
    assert "is not kept" in caplog.text
