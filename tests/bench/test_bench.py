"""A whole measurement of a tiny model: its structure, and that all sides compute the same; never a time."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from rankmill.bench.contender import Contender, reason
from rankmill.bench.found import Found
from rankmill.bench.peers import parse
from rankmill.bench.run import run
from rankmill.bench.subject import load, score_all, survey
from rankmill.cli.bench import run as command
from rankmill.errors import InputError, ModelError, UsageError
from rankmill.scoring.int8 import save_int8
from rankmill.scoring.options import ScorerOptions
from rankmill.settings.bench import BenchSettings
from tests.scoring.reference import all_pairs
from tests.tiny_models import save_tiny_model

LONG = "Water boils at 100 °C (212 °F) at sea level, and lower in the mountains. " * 30


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("RANKMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("rankmill.bench.matrix._SIZES", {"cpu": 64, "cuda": 64})
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weights are stored as int8, which only we can read."""
    folder = save_tiny_model(tmp_path_factory.mktemp("models") / "model", "bert")
    weights = folder / "model.safetensors"
    save_int8(load_file(weights), weights)
    return folder


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """48 pairs, the last one too long for the model."""
    queries, texts = all_pairs()
    texts[-1] = LONG
    path = tmp_path / "pairs.parquet"
    table = {"doc_id": [f"d{i}" for i in range(len(texts))], "query_id": queries, "query": queries, "text": texts}
    pq.write_table(pa.table(table), path)
    return path


def bench(model: Path | str, source: Path, **settings: object) -> Found:
    given = {"model": str(model), "input": str(source), "job": False, "rounds": 2, "threads": 1, "latency": False}
    return run(BenchSettings.model_validate(given | settings), lambda _line: None)


def test_all_sides_compute_the_same(model: Path, pairs: Path) -> None:
    names = ["raw", "torch", "transformers", "torch:bfloat16"]
    names += [
        name
        for name, package in (("sentence-transformers", "sentence_transformers"), ("openvino", "openvino"))
        if importlib.util.find_spec(package)
    ]
    found = bench(model, pairs, against=",".join(names), latency=True, latency_seconds=0.01, plan_pairs="1M")
    assert [peer.name for peer in found.peers] == names
    for peer in found.peers:
        assert peer.problem is None, peer
        assert peer.agreement is not None
        assert peer.agreement.compared == 47
        assert peer.agreement.difference is not None
        assert peer.agreement.difference < (5e-2 if peer.name == "torch:bfloat16" else 1e-4)
        assert peer.precision == ("bfloat16" if peer.name == "torch:bfloat16" else "float32")
        assert peer.pairs_per_second
        assert peer.speed_ratio
    assert (found.workload.pairs, found.workload.whole, found.workload.unit) == (48, 47, "tokens")
    assert (found.chosen.engine, found.chosen.device, found.chosen.batch_tokens) == ("torch", "cpu", 2_048)
    assert found.chosen.why["engine"] == "the model is too small to be worth converting"
    assert found.bare.padding_waste is not None
    assert 0 <= found.bare.padding_waste < 1
    assert found.bare.matrix_fraction is not None
    assert found.bare.matrix_engine in {"torch", "openvino"}
    assert found.bare.peak_bytes > 2**20
    assert [size.candidates for size in found.latency] == [1, 10, 50, 100, 200]
    assert found.job is None
    assert found.plan is not None
    assert found.plan.pairs_per_second == found.bare.pairs_per_second
    assert json.loads(json.dumps(found.as_json()))["peers"][0]["agreement"]["agrees"] is True


def test_a_peer_that_computes_something_else_is_wrong_not_fast(model: Path, pairs: Path, tmp_path: Path) -> None:
    other = save_tiny_model(tmp_path / "other", "bert", seed=1)
    subject = load(ScorerOptions(str(model)))
    table = pq.read_table(pairs)
    queries, texts = table.column("query").to_pylist(), table.column("text").to_pylist()
    (wanted,) = parse("transformers")
    contender = Contender(wanted)
    contender.prepare(subject, lambda: other, queries, texts)
    surveyed = survey(subject, queries, texts)
    contender.run(score_all(subject.scorer, queries, texts), surveyed, "float32")
    shown = contender.compared([1.0], surveyed)
    assert shown.problem is not None
    assert shown.problem.startswith("wrong: logits differ by ")
    assert (shown.pairs_per_second, shown.tokens_per_second, shown.speed_ratio) == (None, None, None)


def test_a_peer_that_cannot_run_says_why(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ours_for_bench.py").write_text("def score(queries, texts):\n    return [len(t) for t in texts]\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = bench("python:ours_for_bench:score", pairs, against="transformers,raw")
    assert "has no files" in (found.peers[0].problem or "")
    assert "no batches of pairs" in (found.peers[1].problem or "")
    assert (found.workload.unit, found.bare.padding_waste, found.bare.matrix_fraction) == ("bytes", None, None)
    assert reason(ModuleNotFoundError("No module", name="sentence_transformers")) == (
        "not installed: pip install sentence-transformers"
    )
    assert reason(ModelError("It is\nnone.")) == "It is none."
    assert reason(ValueError("no")) == "ValueError: no"


def test_what_the_engine_leaves_out_is_not_counted(model: Path, tmp_path: Path) -> None:
    assert load(ScorerOptions(str(model))).first_token
    assert not load(ScorerOptions(str(save_tiny_model(tmp_path / "other", "modernbert")))).first_token


def test_chunks_are_counted_and_peers_left_out(model: Path, pairs: Path) -> None:
    found = bench(model, pairs, against="transformers,torch", long_documents="chunk")
    assert "in chunks" in (found.peers[0].problem or "")
    assert found.peers[1].problem is None
    assert found.workload.whole == 47


@pytest.mark.parametrize(
    ("against", "words"),
    [
        ("vllm", "vllm is not a peer; known are sentence-transformers"),
        ("torch:float8", "float8 is not a precision"),
        ("raw:bfloat16", "leave out the precision"),
    ],
)
def test_unknown_peers(against: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse(against)
    assert [str(peer) for peer in parse(" torch, openvino:bfloat16 ,,torch")] == ["torch", "openvino:bfloat16"]
    assert parse("") == []


def test_whole_queries(model: Path, pairs: Path, tmp_path: Path) -> None:
    assert bench(model, pairs, pairs=3, rounds=1).workload.pairs == 8
    pq.write_table(pq.read_table(pairs).slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(InputError, match="holds no pairs"):
        bench(model, tmp_path / "empty.parquet")


def test_what_is_printed(model: Path, pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = {"model": str(model), "input": str(pairs), "job": False, "rounds": 1, "threads": 1, "latency_seconds": 0.01}
    settings = BenchSettings.model_validate(flags | {"against": "raw,onnxruntime", "plan_pairs": "5M"})
    assert command(settings) == 0
    shown = capsys.readouterr()
    for words in ("bare scorer", "raw", "padding waste", "matrix rate", "p99 ms", "5,000,000 pairs like these"):
        assert words in shown.out
    assert "round 1" in shown.err
    assert command(settings.model_copy(update={"as_json": True, "quiet": True})) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["workload"]["pairs"] == 48
    assert shown.err == ""
