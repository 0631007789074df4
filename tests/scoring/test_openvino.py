"""The OpenVINO engine gives the model's logits, keeps its conversions, and says when it cannot."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankmill.errors import ModelError, UsageError
from rankmill.scoring.families.classifier import Classifier
from rankmill.scoring.load import load_scorer, read_model
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.pair_scorer import PairScorer
from tests.scoring.reference import all_pairs, reference_logits
from tests.tiny_models import FAMILIES, save_tiny_model

openvino = pytest.importorskip("openvino")
from rankmill.scoring.engines import openvino as engine  # noqa: E402 - needs the extra

ALIKE = {"electra": "bert", "roberta": "xlm-roberta"}
"""Families whose network is nearly that of another; to convert one takes seconds."""

families = pytest.mark.parametrize(
    "family", [pytest.param(family, marks=[pytest.mark.slow] if family in ALIKE else []) for family in FAMILIES]
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One cache for all tests of this module, so that every tiny model is converted once."""
    folder = tmp_path_factory.getbasetemp() / "rankmill-cache"
    monkeypatch.setenv("RANKMILL_CACHE", str(folder))
    return folder


@pytest.fixture
def bert(tiny: Mapping[str, Path], cache: Path) -> Any:
    """The tiny BERT's conversion, out of the cache: to convert again takes seconds."""
    load(tiny["bert"])
    model = read_model(ScorerOptions(model=str(tiny["bert"])))
    assert isinstance(model, Classifier)
    key = engine._key(model.files, segments=model.template.segments)
    return openvino.Core().read_model(cache / "openvino" / key / "body.xml")


def load(folder: Path, **options: object) -> PairScorer:
    scorer = load_scorer(ScorerOptions(**{"model": str(folder), "engine": "openvino", "threads": 1, **options}))  # type: ignore[arg-type]
    assert isinstance(scorer, PairScorer)
    return scorer


@families
def test_equal_to_a_bare_loop(tiny: Mapping[str, Path], family: str) -> None:
    queries, texts = all_pairs()
    scorer = load(tiny[family], batch_tokens=300)
    assert scorer.engine.name == "openvino"
    logits = scorer.logits(scorer.encode(queries, texts))
    expected = reference_logits(tiny[family], queries, texts)
    assert expected.std() > 0.1
    assert np.abs(logits - expected).max() < 1e-5
    alone = np.concatenate([scorer.logits(scorer.encode([q], [t])) for q, t in zip(queries, texts, strict=True)])
    assert np.abs(logits - alone).max() < 1e-5


@pytest.mark.skipif(
    "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"), reason="this CPU has no bfloat16"
)
@families
def test_bfloat16_body_keeps_a_float32_head(tiny: Mapping[str, Path], family: str) -> None:
    queries = [f"query {i}" for i in range(40)]
    texts = [f"Water boils at {i} degrees" for i in range(40)]
    narrow, exact = load(tiny[family], precision="bfloat16"), load(tiny[family])
    found, expected = (scorer.logits(scorer.encode(queries, texts)) for scorer in (narrow, exact))
    difference = np.abs(found - expected)
    assert 0 < difference.max() < 5e-2
    assert difference.mean() < 1e-2
    # 8 bits of a bfloat16 logit would leave about ten values between the smallest and the largest of these
    assert len(np.unique(found)) == len(np.unique(expected))


def test_a_conversion_is_kept(tiny: Mapping[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(tiny["bert"])
    graphs = list(cache.glob("openvino/*/body.xml"))
    monkeypatch.setattr(engine, "_convert", lambda *_, **__: pytest.fail("converted again"))
    again = load(tiny["bert"])
    pairs = first.encode(*all_pairs())
    assert first.logits(pairs).tolist() == again.logits(pairs).tolist()
    assert list(cache.glob("openvino/*/body.xml")) == graphs


def test_a_damaged_conversion_is_made_again(
    tiny: Mapping[str, Path],
    bert: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made: list[Any] = []

    def convert(*_: object, **__: object) -> Any:
        made.append(bert)
        return bert

    monkeypatch.setattr(engine, "_convert", convert)
    monkeypatch.setenv("RANKMILL_CACHE", str(tmp_path / "cache"))
    first = load(tiny["bert"])
    (graph,) = (tmp_path / "cache").glob("openvino/*/body.xml")
    graph.write_text("<net")
    again = load(tiny["bert"])
    assert len(made) == 2
    pairs = first.encode(*all_pairs())
    assert first.logits(pairs).tolist() == again.logits(pairs).tolist()
    assert "converting again" in caplog.text
    load(tiny["bert"])
    assert len(made) == 2


def test_a_cache_that_cannot_be_written_is_no_error(
    tiny: Mapping[str, Path],
    bert: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(engine, "_convert", lambda *_, **__: bert)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RANKMILL_CACHE", str(tmp_path / "file"))
    scorer = load(tiny["bert"])
    assert len(scorer.logits(scorer.encode(["a"], ["b"]))) == 1
    assert "cannot be kept" in caplog.text


def test_a_conversion_that_computes_something_else_is_refused(
    bert: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a trace without padding, which finds no need for the mask; here the conversion of other weights."""
    monkeypatch.setattr(engine, "_convert", lambda *_, **__: bert)
    monkeypatch.setenv("RANKMILL_CACHE", str(tmp_path / "cache"))
    folder = save_tiny_model(tmp_path / "model", "bert", seed=1)
    with pytest.raises(ModelError, match="computes something else than the model does"):
        load(folder)
    assert not list((tmp_path / "cache").glob("openvino/*/body.xml"))


def test_what_it_cannot_do_is_said(tiny: Mapping[str, Path]) -> None:
    with pytest.raises(UsageError, match="float16 needs a GPU"):
        load(tiny["bert"], precision="float16")
