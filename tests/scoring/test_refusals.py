"""Models that cannot be used are refused before anything runs, in a sentence with the culprit and the way out."""

import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from rankmill.errors import ModelError, UsageError
from rankmill.scoring.load import check_model, load_scorer
from rankmill.scoring.options import ScorerOptions
from tests.tiny_models import FAMILIES


@pytest.fixture
def folder(tiny: Mapping[str, Path], tmp_path: Path) -> Path:
    """A good tiny BERT, to be spoilt."""
    shutil.copytree(tiny["bert"], tmp_path / "model")
    return tmp_path / "model"


def edit_json(path: Path, **changes: Any) -> Path:
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**content, **changes}))
    return path


def edit_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    state = load_file(path)
    change(state)
    save_file(state, path, metadata={"format": "pt"})


def remove(folder: Path, name: str) -> Path:
    (folder / name).unlink()
    return folder


def pickled_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def sharded(folder: Path, name: str) -> None:
    """Two shards; `name` is what the index says of the second."""
    state = load_file(folder / "model.safetensors")
    keys = sorted(state)
    parts = {"model-00001-of-00002.safetensors": keys[::2], "model-00002-of-00002.safetensors": keys[1::2]}
    for file, part in parts.items():
        save_file({key: state[key] for key in part}, folder / file, metadata={"format": "pt"})
    named = dict(zip(parts, ["model-00001-of-00002.safetensors", name], strict=True))
    weight_map = {key: named[file] for file, part in parts.items() for key in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    remove(folder, "model.safetensors")


def config(**changes: Any) -> Callable[[Path], Path]:
    return lambda folder: edit_json(folder / "config.json", **changes)


CASES: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "empty folder": (
        lambda folder: [remove(folder, path.name) for path in folder.iterdir()],
        ["is empty", "config.json, model.safetensors and tokenizer.json"],
    ),
    "no config": (lambda f: remove(f, "config.json"), ["config.json is missing", "A model folder holds"]),
    "config not JSON": (lambda f: (f / "config.json").write_text("{"), ["config.json", "not valid JSON"]),
    "config a list": (lambda f: (f / "config.json").write_text("[]"), ["holds a list, not a JSON object"]),
    "no tokenizer": (lambda f: remove(f, "tokenizer.json"), ["tokenizer.json is missing", "save_pretrained(FOLDER)"]),
    "tokenizer of nothing": (lambda f: (f / "tokenizer.json").write_text("{}"), ["not a fast tokenizer's"]),
    "tokenizer broken": (lambda f: edit_json(f / "tokenizer.json", model={"type": "Magic"}), ["cannot be read"]),
    "no pair format": (lambda f: edit_json(f / "tokenizer.json", post_processor=None), ["no format for pairs"]),
    "tokenizer of another model": (config(vocab_size=60), ["do not belong together", "the model embeds 60"]),
    "no weights": (lambda f: remove(f, "model.safetensors"), ["has no weights", "holds no model.safetensors"]),
    "pickled weights": (
        pickled_only,
        ["only as pytorch_model.bin", "can run code", "only safetensors", "Convert once"],
    ),
    "damaged weights": (
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-100]),
        ["model.safetensors", "damaged or cut short", "Fetch the file again"],
    ),
    "weights of noise": (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 64), ["damaged or cut short"]),
    "index outside": (lambda f: sharded(f, "../model-00002-of-00002.safetensors"), ["'../model-00002", "directly in"]),
    "index absolute": (lambda f: sharded(f, "/tmp/x.safetensors"), ["'/tmp/x.safetensors'", "directly in"]),  # noqa: S108
    "shard missing": (lambda f: sharded(f, "model-00009-of-00002.safetensors"), ["model-00009-of-00002", "incomplete"]),
    "language model": (
        config(architectures=["LlamaForCausalLM"], model_type="llama"),
        ["writes text (LlamaForCausalLM)", "Usable are BERT"],
    ),
    "bi-encoder": (
        config(architectures=["BertModel"]),
        ["without a classification head (BertModel)", "embeds one text"],
    ),
    "masked language model": (config(architectures=["BertForMaskedLM"]), ["BertForMaskedLM", "no head that scores"]),
    "another architecture": (
        config(architectures=["GPTNeoXForSequenceClassification"]),
        ["GPTNeoXForSequenceClassification", "this version cannot run"],
    ),
    "no architecture": (config(architectures=None), ["does not say what it is", "no 'architectures'"]),
    "contradiction": (config(model_type="roberta"), ["contradicts itself", "'roberta' where 'bert' belongs"]),
    "remote code": (config(auto_map={"AutoModel": "evil.Model"}), ["own Python code (auto_map", "not run"]),
    "code for the tokenizer": (
        lambda f: edit_json(f / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]}),
        ["own Python code for its tokenizer", "never run"],
    ),
    "quantised": (config(quantization_config={"bits": 4}), ["quantised (quantization_config", "float32"]),
    "three labels": (
        config(id2label={"0": "contradiction", "1": "entailment", "2": "neutral"}),
        ["has 3 labels", "a reranker has exactly 1"],
    ),
    "labels not stated": (config(id2label=None), ["has 2 labels"]),  # what transformers makes of it
    "not a number": (config(max_position_embeddings="many"), ["max_position_embeddings = 'many'"]),
    "activation that is code": (
        config(sentence_transformers={"activation_fn": "my.module.Tanh"}),
        ["'my.module.Tanh'", "only torch.nn.Identity and torch.nn.Sigmoid"],
    ),
    "prompt": (
        lambda f: edit_json(
            f / "config_sentence_transformers.json", prompts={"query": "Query: "}, default_prompt_name="query"
        ),
        ["the prompt 'Query: '"],
    ),
    "dense layer": (
        lambda f: (f / "modules.json").write_text(json.dumps([{"type": "x.Transformer"}, {"type": "x.Dense"}])),
        ["adds modules of sentence-transformers", "Transformer, Dense"],
    ),
    "no head": (
        lambda f: edit_weights(f / "model.safetensors", lambda state: state.pop("classifier.weight")),
        ["no classification head (classifier.weight is missing", "random scores"],
    ),
    "head of two": (
        lambda f: edit_weights(f / "model.safetensors", lambda s: s.update({"classifier.weight": torch.zeros(2, 32)})),
        ["has 2 outputs", "exactly 1"],
    ),
    "integer weights": (
        lambda f: edit_weights(
            f / "model.safetensors", lambda s: s.update({"classifier.weight": torch.zeros(1, 32, dtype=torch.int8)})
        ),
        ["'classifier.weight'", "stored as I8", "quantised"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_by_the_check(folder: Path, case: str) -> None:
    assert check_model(ScorerOptions(model=str(folder))).family == "bert"
    spoil, words = CASES[case]
    spoil(folder)
    with pytest.raises(ModelError) as caught:
        check_model(ScorerOptions(model=str(folder)))
    message = str(caught.value)
    assert str(folder) in message or "config.json says" in message
    for word in words:
        assert word in message
    with pytest.raises(ModelError):
        load_scorer(ScorerOptions(model=str(folder)))


LAYER = "bert.encoder.layer.1.output.dense.weight"
UNFIT: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "missing": (lambda state: state.pop(LAYER), f"{LAYER} is missing"),
    "left over": (lambda s: s.update({"bert.extra.weight": torch.zeros(2)}), "bert.extra.weight is not part"),
    "misshapen": (lambda s: s.update({LAYER: torch.zeros(32, 60)}), f"{LAYER} is of another shape"),
    "half missing": (lambda s: [s.pop(k) for k in sorted(s) if "encoder" in k], "and 43 more are missing"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_weights_must_fit_exactly(folder: Path, case: str, capfd: pytest.CaptureFixture[str]) -> None:
    change, words = UNFIT[case]
    edit_weights(folder / "model.safetensors", change)
    with pytest.raises(ModelError, match="do not fit its architecture") as caught:
        load_scorer(ScorerOptions(model=str(folder)))
    assert words in str(caught.value)
    assert capfd.readouterr().err == ""  # no progress bar, no report: the error says it


@pytest.mark.parametrize("family", FAMILIES)
def test_any_weight_too_few_or_too_many(tiny: Mapping[str, Path], tmp_path: Path, family: str) -> None:
    """First and last layer, embeddings, pooler and head: nothing of a network is made up, nothing is left out."""
    shutil.copytree(tiny[family], tmp_path, dirs_exist_ok=True)
    path = tmp_path / "model.safetensors"
    complete = load_file(path)
    for name in sorted(complete)[:: max(1, len(complete) // 6)] + [key for key in complete if "classifier" in key]:
        save_file({key: value for key, value in complete.items() if key != name}, path, metadata={"format": "pt"})
        with pytest.raises(ModelError, match=re.escape(name)):
            load_scorer(ScorerOptions(model=str(tmp_path)))
        body = name.split(".")[0]
        save_file({**complete, f"{body}.adapter.weight": torch.ones(2)}, path, metadata={"format": "pt"})
        with pytest.raises(ModelError, match=rf"{body}\.adapter\.weight is not part of the architecture"):
            load_scorer(ScorerOptions(model=str(tmp_path)))


class Touch:
    """A pickle of it makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


def test_pickled_weights_beside_safetensors_are_left_alone(folder: Path) -> None:
    ran = folder.parent / "ran"
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "adapter_model.bin"):
        (folder / name).write_bytes(pickle.dumps(Touch(ran)))
    load_scorer(ScorerOptions(model=str(folder)))
    assert not ran.exists()


def test_a_folder_of_links_is_read_as_the_hub_cache_has_it(folder: Path, tiny: Mapping[str, Path]) -> None:
    blobs, snapshot = folder.parent / "blobs", folder.parent / "snapshots" / "c0ffee"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", str(number)))
    scorer = load_scorer(ScorerOptions(model=str(snapshot)))
    assert scorer.fingerprint == load_scorer(ScorerOptions(model=str(tiny["bert"]))).fingerprint


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_links_that_lead_nowhere(folder: Path, name: str) -> None:
    """Into the void, and round in a circle."""
    for target in ("gone", name):
        (folder / name).unlink()
        (folder / name).symlink_to(target)
        with pytest.raises(ModelError, match=name):
            check_model(ScorerOptions(model=str(folder)))


def test_a_folder_where_a_file_belongs(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(ModelError, match=r"holds no model\.safetensors"):
        check_model(ScorerOptions(model=str(folder)))


def test_harmless_leftovers_are_passed_over(folder: Path) -> None:
    """Before release 4.31, transformers saved position_ids, a constant, among the weights."""
    edit_weights(
        folder / "model.safetensors", lambda s: s.update({"bert.embeddings.position_ids": torch.arange(128)[None]})
    )
    scorer = load_scorer(ScorerOptions(model=str(folder)))
    assert len(scorer.logits(scorer.encode(["a"], ["b"]))) == 1


def test_weights_in_shards_are_the_same_weights(folder: Path, tiny: Mapping[str, Path]) -> None:
    sharded(folder, "model-00002-of-00002.safetensors")
    in_shards, whole = (load_scorer(ScorerOptions(model=str(path))) for path in (folder, tiny["bert"]))
    pairs = whole.encode(["water"], ["sea level"])
    assert in_shards.logits(pairs).tolist() == whole.logits(pairs).tolist()


def test_config_that_makes_no_network(folder: Path) -> None:
    edit_json(folder / "config.json", num_attention_heads=5)
    with pytest.raises(
        ModelError, match=r"cannot build the model .* from its config.json: ValueError: .*attention heads"
    ):
        load_scorer(ScorerOptions(model=str(folder)))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("/no/such/folder", "no model folder '/no/such/folder'"),
        ("./nothing", "no model folder './nothing'"),
        ("misspelled", "Give --model builtin, a local folder, or a hub id"),
    ],
)
def test_names_that_are_no_models(model: str, words: str) -> None:
    with pytest.raises(ModelError) as caught:
        check_model(ScorerOptions(model=model))
    assert words in str(caught.value)


def test_a_file_is_not_a_folder(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"is a file; give the folder that holds config\.json"):
        check_model(ScorerOptions(model=str(folder / "model.safetensors")))


def test_an_existing_folder_wins_over_a_hub_id(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent.parent)
    name = f"{folder.parent.name}/{folder.name}"
    card = check_model(ScorerOptions(model=name))
    assert (card.model, card.folder, card.revision) == (name, folder, None)
    for model in (name, "builtin"):
        with pytest.raises(UsageError, match=f"--revision 'main' was given with --model '{model}', which has none"):
            check_model(ScorerOptions(model=model, revision="main"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_length": 129}, "--max-length 129 is more than the 128 tokens"),
        ({"max_length": 4}, "--max-length 4 leaves no room: the pair format .* takes 3 tokens.* at least 5"),
        ({"max_length": 20, "max_query_tokens": 17}, "--max-query-tokens 17 leaves nothing for the document.* most 16"),
    ],
)
def test_limits_that_do_not_fit(folder: Path, options: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_model(ScorerOptions(model=str(folder), **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_tokens": 0}, "--batch-tokens is 0; it must be at least 1"),
        ({"threads": -1}, "--threads is -1"),
        ({"device": "tpu"}, "--device is 'tpu'; it must be one of auto, cpu, cuda"),
        ({"precision": "int4"}, "--precision is 'int4'"),
        ({"model": ""}, "--model is empty"),
    ],
)
def test_options_that_no_model_could_fulfil(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ScorerOptions(**options)


@pytest.mark.parametrize(
    ("family", "tokenizer_limit", "expected"),
    [
        ("bert", 512, 128),
        ("roberta", 512, 128),
        ("xlm-roberta", None, 128),
        ("modernbert", 8192, 128),
        ("bert", 50, 50),
    ],
)
def test_length_is_the_smallest_limit(
    tiny: Mapping[str, Path], tmp_path: Path, family: str, tokenizer_limit: int | None, expected: int
) -> None:
    """XLM-R's tokenizer says 1e30, and two of RoBERTa's 130 positions are never used."""
    shutil.copytree(tiny[family], tmp_path, dirs_exist_ok=True)
    if tokenizer_limit is not None:
        edit_json(tmp_path / "tokenizer_config.json", model_max_length=tokenizer_limit)
    assert check_model(ScorerOptions(model=str(tmp_path))).max_length == expected


def test_checking_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys; from rankmill.scoring.load import check_model, load_encoder, ScorerOptions; "
        f"options = ScorerOptions(model={str(folder)!r}); check_model(options); load_encoder(options); "
        "print([name for name in ('torch', 'transformers', 'ray') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.strip() == "[]"
