"""Equal fingerprints mean equal logits: whatever changes a logit changes it, and nothing else does."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from rankmill.scoring.load import check_model, load_scorer
from rankmill.scoring.options import ScorerOptions
from tests.tiny_models import save_tiny_model


@pytest.fixture
def folder(tiny: Mapping[str, Path], tmp_path: Path) -> Path:
    shutil.copytree(tiny["bert"], tmp_path / "model")
    return tmp_path / "model"


def fingerprint(folder: Path, **options: Any) -> str:
    return check_model(ScorerOptions(model=str(folder), **options)).fingerprint


def test_the_scorer_says_what_the_check_said(folder: Path) -> None:
    options = ScorerOptions(model=str(folder), precision="bfloat16", max_length=50)
    assert load_scorer(options).fingerprint == check_model(options).fingerprint
    assert len(check_model(options).fingerprint) == 64


def test_a_card(folder: Path) -> None:
    card = check_model(ScorerOptions(model=str(folder)))
    assert (card.family, card.architecture) == ("bert", "BertForSequenceClassification")
    assert card.parameters == sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())
    assert (card.stored_dtype, card.precision, card.activation) == ("F32", "float32", "sigmoid")
    assert (card.max_length, card.max_query_tokens) == (128, 62)
    assert card.folder == folder


@pytest.mark.parametrize(
    "options",
    [{"batch_tokens": 77}, {"threads": 1}, {"device": "cpu"}, {"max_length": 128}, {"max_query_tokens": 62}],
)
def test_how_it_runs_does_not_matter(folder: Path, options: dict[str, Any]) -> None:
    assert fingerprint(folder, **options) == fingerprint(folder)


def test_where_it_lies_does_not_matter(folder: Path) -> None:
    copy = shutil.copytree(folder, folder.parent / "copy")
    change_json("config.json", transformers_version="9", _name_or_path="/elsewhere", dtype="float16")(copy)
    assert fingerprint(copy) == fingerprint(folder)


@pytest.mark.parametrize("options", [{"precision": "bfloat16"}, {"max_length": 100}, {"max_query_tokens": 10}])
def test_options_that_change_logits(folder: Path, options: dict[str, Any]) -> None:
    assert fingerprint(folder, **options) != fingerprint(folder)


def change_json(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def one_weight(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["classifier.bias"] += 1e-6
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def another_word(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["waters"] = tokenizer["model"]["vocab"].pop("water")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


@pytest.mark.parametrize(
    "change",
    [
        one_weight,
        another_word,
        change_json("config.json", layer_norm_eps=1e-5),
        change_json("config.json", hidden_act="relu"),
        change_json("config.json", sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"}),
        change_json("tokenizer_config.json", do_lower_case=False),
        change_json("tokenizer_config.json", model_max_length=100),
        change_json("tokenizer_config.json", model_input_names=["input_ids", "attention_mask"]),
    ],
)
def test_files_that_change_logits_or_scores(folder: Path, change: Callable[[Path], None]) -> None:
    before = fingerprint(folder)
    change(folder)
    assert fingerprint(folder) != before


def test_another_seed_is_another_model(tmp_path: Path) -> None:
    assert fingerprint(save_tiny_model(tmp_path / "0", "bert", 0)) == fingerprint(
        save_tiny_model(tmp_path / "1", "bert", 0)
    )
    assert fingerprint(save_tiny_model(tmp_path / "2", "bert", 1)) != fingerprint(tmp_path / "0")


def test_a_new_pair_assembly_is_another_scorer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(folder)
    monkeypatch.setattr("rankmill.scoring.families.classifier.ASSEMBLY_VERSION", 1_000)
    assert fingerprint(folder) != before
