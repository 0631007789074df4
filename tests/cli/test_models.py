"""`rankmill models inspect`: what is said of a model, and what its test finds."""

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rankmill.cli.main import main
from rankmill.errors import ModelError
from rankmill.scoring.card import ModelCard
from rankmill.scoring.load import check_model, load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.self_test import self_test
from rankmill.types import EncodedPairs
from tests.tiny_models import save_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), "xlm-roberta")


def test_the_builtin_model_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "inspect", "builtin", "--engine", "torch", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {check["name"]: check["outcome"] for check in found["self_test"]} == {
        "known scores": "passed",  # new weights need new ones, in `self_test.PINNED`
        "order": "passed",
        "batches": "passed",
    }
    assert (found["model"], found["kind"], found["family"]) == ("builtin", "cross-encoder", "bert")


def test_a_random_model_is_described_and_its_order_only_a_warning(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["models", "inspect", str(model), "--precision", "float32"]
    assert main(flags) == 0
    shown = capsys.readouterr().out
    card = check_model(ScorerOptions(model=str(model), precision="float32"))
    for word in ("cross-encoder", "xlm-roberta", "XLMRobertaForSequenceClassification", card.fingerprint, "sigmoid"):
        assert word in shown
    assert "skipped: no scores of this model are known." in shown
    assert main([*flags, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {field.name for field in fields(ModelCard)} | {"self_test"}
    assert (found["fingerprint"], found["parameters"]) == (card.fingerprint, card.parameters)
    outcomes = {check["name"]: check["outcome"] for check in found["self_test"]}
    assert outcomes["batches"] == "passed"
    assert outcomes["order"] in {"passed", "warning"}


def test_options_change_what_is_described(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "inspect", str(model), "--max-length", "50", "--no-self-test"]) == 0
    shown = capsys.readouterr().out
    assert "max length" in shown
    assert " 50\n" in shown
    assert "test:" not in shown


class Unsound:
    """A loaded model whose logits depend on how many pairs it is given."""

    listwise = False

    def __init__(self, folder: Path) -> None:
        self._scorer = load_scorer(ScorerOptions(model=str(folder), precision="float32"))
        self.fingerprint, self.activation, self.encode = "unsound", "identity", self._scorer.encode

    def logits(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        return self._scorer.logits(pairs) + np.float32(0.01 * len(pairs))


def test_scores_that_depend_on_the_batch_are_found(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = check_model(ScorerOptions(model=str(model), precision="float32"))
    outcomes = {check.name: check for check in self_test(Unsound(model), card)}
    assert outcomes["batches"].outcome == "failed"
    assert "differ by 1.1e-01 at most" in outcomes["batches"].detail
    monkeypatch.setattr("rankmill.cli.models.self_test", lambda _, card: self_test(Unsound(model), card))
    assert main(["models", "inspect", str(model)]) == ModelError.exit_code == 2
    shown = capsys.readouterr()
    assert "failed its self-test. batches: " in shown.err
    assert "failed: " in shown.out


def test_a_known_score_that_is_missed_is_found() -> None:
    card = check_model(ScorerOptions(engine="torch", precision="float32"))
    other = load_scorer(ScorerOptions(engine="torch", precision="float32"))

    class Shifted:
        fingerprint, activation, listwise, encode = "shifted", "identity", False, staticmethod(other.encode)

        def logits(self, pairs: EncodedPairs) -> NDArray[np.float32]:
            return other.logits(pairs) + np.float32(0.01)

    outcomes = {check.name: check.outcome for check in self_test(Shifted(), card)}
    assert outcomes == {"known scores": "failed", "order": "passed", "batches": "passed"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["models"], "models is not a command. Did you mean models inspect?"),
        (["models", "inspct"], "Did you mean models inspect?"),
        (["models", "inspect"], "MODEL"),
        (["models", "inspect", "no/such/folder"], "There is no model folder 'no/such/folder'"),
        (["models", "inspect", "builtin", "--no-such"], "--no-such is not a flag of `rankmill models inspect`"),
        (["models", "inspect", "builtin", "--max-length", "100000"], "--max-length 100000 is more than"),
    ],
)
def test_mistakes_are_told_in_sentences(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err
