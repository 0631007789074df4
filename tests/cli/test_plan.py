"""`rankmill plan` says what a job would be, and neither runs nor writes anything."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.batch import job as batch
from rankmill.batch.executor import InProcess
from rankmill.cli.main import main
from rankmill.scoring.load import load_encoder
from rankmill.scoring.options import ScorerOptions
from rankmill.settings.rerank import RerankSettings
from tests.batch.conftest import write_jsonl
from tests.tiny_models import CORPUS, save_tiny_model

Row = dict[str, Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), "bert")


@pytest.fixture(autouse=True)
def _no_figures_of_earlier_runs(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKMILL_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def rows() -> list[Row]:
    """40 queries of 5 candidates; every text of the second half is longer."""
    words = " ".join(CORPUS).split()
    texts = {n: " ".join(words[: 3 + n % 7 + 20 * (n >= 100)]) for n in range(200)}
    return [{"query_id": n // 5, "query": "a red fox", "doc_id": n % 5, "text": text} for n, text in texts.items()]


def plan(capsys: pytest.CaptureFixture[str], *flags: object) -> dict[str, Any]:
    assert main(["plan", *map(str, flags), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("form", ["parquet", "shuffled parquet", "jsonl", "jsonl.gz"])
def test_counts_and_tokens(
    tmp_path: Path, model: Path, rows: list[Row], form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / f"in.{form.rpartition(' ')[2]}"
    stored = rows[1::2] + rows[::2] if "shuffled" in form else rows
    if "parquet" in form:
        pq.write_table(pa.Table.from_pylist(stored), source, row_group_size=50)
    else:
        write_jsonl(source, stored)
    before = sorted(tmp_path.rglob("*"))
    found = plan(capsys, "--input", source, "--model", model, "--shard-pairs", 10)
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written"
    assert (found["pairs"], found["queries"], found["shards"], found["files"]) == (200, 40, 20, 1)
    assert found["gathered_pairs"] == (200 if "shuffled" in form else 0)
    assert found["largest_shard_pairs"] == 10
    encoder = load_encoder(ScorerOptions(model=str(model)))
    lengths = encoder.encode([row["query"] for row in rows], [row["text"] for row in rows]).lengths
    if form == "jsonl.gz":  # read from its start alone
        lengths = lengths[:64]
    assert found["sample"]["mean_tokens"] == pytest.approx(float(np.mean(lengths)), rel=0.15)
    assert found["tokens"] == round(found["sample"]["mean_tokens"] * 200)
    assert found["estimate"] is None


@pytest.mark.parametrize("form", ["parquet", "jsonl", "jsonl.gz"])
def test_a_run_is_counted_and_its_texts_are_sampled(
    tmp_path: Path, model: Path, rows: list[Row], form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Documents are twice as many as the run asks for; no file is joined or written."""
    documents = [{"_id": str(n), "text": rows[n]["text"]} for n in range(len(rows))]
    queries = [{"_id": str(n), "text": "a red fox"} for n in range(40)]
    run = tmp_path / "run.trec"
    run.write_text("".join(f"{n // 5} Q0 {n % 100} 1 {n} x\n" for n in range(200)))
    corpus = tmp_path / f"corpus.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(documents), corpus, row_group_size=50)
    else:
        write_jsonl(corpus, documents)
    write_jsonl(tmp_path / "queries.jsonl", queries)
    flags = ["--input", run, "--queries", tmp_path / "queries.jsonl", "--corpus", corpus, "--shard-pairs", 10]
    flags += [
        "--model",
        model,
        "--bench",
        bench_file(tmp_path / "bench.json", model, chosen={"device": "cpu", "precision": "float32"}),
    ]
    before = sorted(tmp_path.rglob("*"))
    found = plan(capsys, *flags)
    assert sorted(tmp_path.rglob("*")) == before, "nothing is written"
    assert (found["pairs"], found["queries"], found["shards"], found["files"]) == (200, 40, 20, 3)
    assert (found["joined"], found["sample"]["pairs"] >= 64, found["sample"]["rejected"]) == (True, True, 0)
    encoder = load_encoder(ScorerOptions(model=str(model)))
    lengths = encoder.encode(["a red fox"] * len(rows), [row["text"] for row in rows]).lengths
    assert found["sample"]["mean_tokens"] == pytest.approx(float(np.mean(lengths)), rel=0.15)
    assert found["tokens"] == round(found["sample"]["mean_tokens"] * 200)
    assert found["estimate"]["tokens_per_second"] == 400
    assert main(["plan", *map(str, flags)]) == 0
    assert "Estimated: tokens, sizes and what follows from them" in capsys.readouterr().out


def test_a_run_without_usable_texts_is_refused_by_plan_too(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.trec").write_text("q Q0 d 1 1 x\n")
    write_jsonl(tmp_path / "queries.jsonl", [{"_id": "q", "text": "fox"}])
    write_jsonl(tmp_path / "corpus.jsonl", [{"_id": "d", "body": "dog"}])
    flags = ["--input", tmp_path / "run.trec", "--queries", tmp_path / "queries.jsonl", "--model", model]
    assert main(["plan", *map(str, flags), "--corpus", str(tmp_path / "corpus.jsonl")]) == 2
    assert "no column text" in capsys.readouterr().err


def bench_file(path: Path, measured: Path, **changes: Any) -> Path:
    """What `rankmill bench --json` prints, after a line of something else."""
    figures = {
        "model": str(measured),
        "machine": {"cpu": "a CPU", "gpu": "GPU X", "threads": 2, "date": "2026-01-01"},
        "chosen": {"device": "cuda", "precision": "bfloat16", "engine": "torch"},
        "bare": {"tokens_per_second": 500.0, "pairs_per_second": 5.0, "peak_bytes": 1, "gpu_peak_bytes": 3 << 30},
        "job": {"to_bare": 0.8},
    }
    path.write_text("a line\n" + json.dumps(figures | changes) + "\n")
    return path


def test_time_and_cost_follow_from_measured_figures(
    tmp_path: Path, model: Path, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    flags = ["--input", tmp_path / "in.parquet", "--model", model, "--gpus-per-worker", 1, "--workers", "2,4"]
    bench = bench_file(tmp_path / "bench.json", model)
    found = plan(capsys, *flags, "--bench", bench, "--gpu-price", 3.5)
    hours = found["tokens"] / 400 / 3600
    assert found["estimate"]["units"] == 4
    assert found["estimate"]["unit_hours"] == pytest.approx(hours)
    assert found["estimate"]["hours"] == pytest.approx(hours / 4)
    assert found["estimate"]["cost"] == pytest.approx(hours * 3.5)
    assert found["measured_peak_bytes"] == 3 << 30
    assert main(["plan", *map(str, flags), "--bench", str(bench)]) == 0
    shown = capsys.readouterr().out
    assert "on 4 times a GPU X (400 tokens/s each)" in shown
    assert "`rankmill bench` measured 3.0 GiB" in shown


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "another"}, "was measured with the model another in bfloat16; this job uses"),
        ({"chosen": {"device": "cuda", "precision": "float32"}}, "in float32; this job uses"),
        ({"bare": {}}, "is not what `rankmill bench --json` prints"),
    ],
)
def test_figures_of_something_else_are_refused(
    tmp_path: Path,
    model: Path,
    rows: list[Row],
    changes: dict[str, Any],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    bench = bench_file(tmp_path / "bench.json", model, **changes)
    flags = ["--input", tmp_path / "in.parquet", "--model", model, "--gpus-per-worker", 1, "--bench", bench]
    assert main(["plan", *map(str, flags)]) == 2
    assert said in capsys.readouterr().err


def test_mistakes_are_found_before_anything_runs(
    tmp_path: Path, model: Path, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pa.Table.from_pylist(rows).drop_columns("text"), tmp_path / "in.parquet")
    assert main(["plan", "--input", str(tmp_path / "in.parquet"), "--model", str(model)]) == 2
    assert "no column text" in capsys.readouterr().err


def test_an_output_is_looked_at_and_left_alone(
    tmp_path: Path, model: Path, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    flags = ["--input", tmp_path / "in.parquet", "--model", model, "--shard-pairs", 50, "--output", tmp_path / "out"]
    assert plan(capsys, *flags)["finished_shards"] == 0
    assert not (tmp_path / "out").exists()
    settings = RerankSettings(
        input=str(tmp_path / "in.parquet"), model=str(model), shard_pairs=50, output=str(tmp_path / "out"), quiet=True
    )
    batch.run(batch.prepare(settings), InProcess())
    assert plan(capsys, *flags)["finished_shards"] == 4
    assert main(["plan", *map(str, flags), "--top-k", "3"]) == 3
    assert "top_k" in capsys.readouterr().err
