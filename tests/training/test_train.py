"""Training end to end with tiny models: it learns, it repeats itself, and a kill changes nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rankmill.errors import InputError, ModelError, OutputConflictError
from rankmill.scoring.int8 import load_int8
from rankmill.settings.train import TrainSettings
from rankmill.training.lists import TrainingList, write_lists
from rankmill.training.train import train
from tests.tiny_models import save_tiny_model


class ListMaker(Protocol):
    """Makes `count` synthetic lists (see conftest)."""

    def __call__(self, count: int, *, seed: int, split: str = "train") -> list[TrainingList]: ...


Lists = list[TrainingList]
ROOT = Path(__file__).parents[2]


def settings_for(tmp_path: Path, body: Path, lists: list[TrainingList], **changed: object) -> TrainSettings:
    """Settings of a short run; `changed` overrides single fields."""
    path = tmp_path / "lists.parquet"
    if not path.exists():
        write_lists(lists, path)
    values: dict[str, object] = {
        "input": [path],
        "output": tmp_path / "out",
        "body": str(body),
        "steps": 20,
        "lists_per_step": 4,
        "max_length": 32,
        "learning_rate": 3e-3,
        "threads": 1,
        "device": "cpu",
    }
    return TrainSettings.model_validate(values | changed)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


def test_a_tiny_model_learns_which_document_holds_the_word(
    tmp_path: Path, tiny_body: Path, list_maker: ListMaker
) -> None:
    lists = [*list_maker(200, seed=3), *list_maker(30, seed=5, split="dev")]
    before = train(settings_for(tmp_path, tiny_body, lists, steps=1, output=tmp_path / "start"))
    after = train(settings_for(tmp_path, tiny_body, lists, steps=450, lists_per_step=8, output=tmp_path / "end"))
    assert after.loss < 0.5 * before.loss
    assert after.figures[0].queries == 30
    assert after.figures[0].after > 0.9 > before.figures[0].after  # four candidates in random order give about .7


def test_the_same_settings_give_the_same_weights_and_another_seed_does_not(
    tmp_path: Path, tiny_body: Path, overlap_lists: Lists
) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(settings_for(tmp_path, tiny_body, overlap_lists, output=tmp_path / name, seed=seed, dropout=0.1))
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not torch.equal(weights(tmp_path / "a")["classifier.weight"], weights(tmp_path / "c")["classifier.weight"])


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_weights(tmp_path: Path, tiny_body: Path, overlap_lists: Lists) -> None:
    settings = settings_for(tmp_path, tiny_body, overlap_lists, steps=600, dropout=0.1, output=tmp_path / "whole")
    train(settings)
    flags = (
        f"--input {settings.input[0]} --output {tmp_path / 'killed'} --body {settings.body} --steps 600"
        " --lists-per-step 4 --max-length 32 --learning-rate 3e-3 --threads 1 --device cpu --dropout 0.1"
        " --checkpoint-seconds 0.2 --json"
    )
    command = [sys.executable, str(ROOT / "jobs" / "train.py"), *flags.split()]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "lib")}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    again = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    told = json.loads(again.stdout)
    assert 0 < told["resumed_at"] < 600
    assert_same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path, tiny_body: Path, overlap_lists: Lists) -> None:
    train(settings_for(tmp_path, tiny_body, overlap_lists, steps=2))
    with pytest.raises(OutputConflictError, match=r"checkpoint\.pt was written at step 2 by a run with other settings"):
        train(settings_for(tmp_path, tiny_body, overlap_lists, steps=2, learning_rate=1e-4))


def test_the_model_folder_is_one_that_transformers_loads(tmp_path: Path, tiny_body: Path, overlap_lists: Lists) -> None:
    folder = train(settings_for(tmp_path, tiny_body, overlap_lists, steps=2)).model
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert model.config.num_labels == 1
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["sentence_transformers"] == {"activation_fn": "torch.nn.modules.activation.Sigmoid"}
    assert AutoTokenizer.from_pretrained(folder).model_max_length == 64


def test_int8_output_holds_the_same_model_within_a_rounding_step(
    tmp_path: Path, tiny_body: Path, overlap_lists: Lists
) -> None:
    train(settings_for(tmp_path, tiny_body, overlap_lists, steps=2, output=tmp_path / "whole"))
    small_run = settings_for(tmp_path, tiny_body, overlap_lists, steps=2, output=tmp_path / "small", int8=True)
    folder = train(small_run).model
    small, whole = load_int8(folder / "model.safetensors"), weights(tmp_path / "whole")
    assert small.keys() == whole.keys()
    for name, tensor in whole.items():
        assert torch.allclose(small[name], tensor, atol=float(tensor.abs().max()) / 200), name


@pytest.mark.parametrize("family", ["electra", "roberta", "modernbert", "deberta-v2"])
def test_every_family_that_is_served_can_be_trained(tmp_path: Path, family: str, list_maker: ListMaker) -> None:
    body = save_tiny_model(tmp_path / "body", family)
    lists = [*list_maker(8, seed=3), *list_maker(3, seed=5, split="dev")]
    summary = train(settings_for(tmp_path, body, lists, steps=2))
    trained, start = weights(tmp_path / "out"), load_file(body / "model.safetensors")
    assert any(not torch.equal(tensor, start[name]) for name, tensor in trained.items())
    assert (summary.figures[0].name, summary.figures[0].queries) == ("held-out lists", 3)


def test_a_collection_that_cannot_be_measured_is_refused_before_training(
    tmp_path: Path, tiny_body: Path, overlap_lists: Lists
) -> None:
    with pytest.raises(InputError, match="holds 0 files named run"):
        train(settings_for(tmp_path, tiny_body, overlap_lists, evaluate=[tmp_path]))
    assert not (tmp_path / "out").exists()


def test_frozen_word_embeddings_stay(tmp_path: Path, tiny_body: Path, overlap_lists: Lists) -> None:
    train(settings_for(tmp_path, tiny_body, overlap_lists, steps=3, freeze_embeddings=True))
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(weights(tmp_path / "out")[f"bert.{name}"], load_file(tiny_body / "model.safetensors")[name])


def test_lists_without_a_training_split_are_refused(tmp_path: Path, tiny_body: Path, list_maker: ListMaker) -> None:
    with pytest.raises(InputError, match="None of the 3 lists is in split 'train'"):
        train(settings_for(tmp_path, tiny_body, list_maker(3, seed=1, split="dev")))


def test_a_body_that_is_not_there_is_named(tmp_path: Path, overlap_lists: Lists) -> None:
    with pytest.raises(ModelError, match="Cannot load the body"):
        train(settings_for(tmp_path, tmp_path / "nothing", overlap_lists))


def test_a_rate_that_explodes_stops_with_a_sentence(tmp_path: Path, tiny_body: Path, overlap_lists: Lists) -> None:
    with pytest.raises(ModelError, match=r"The loss became (nan|inf) at step \d+ of 20"):
        train(settings_for(tmp_path, tiny_body, overlap_lists, learning_rate=1e30))
