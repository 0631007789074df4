"""jina-reranker-v2 scores by its own architecture's arithmetic, without the code that it brings."""

import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.nn.functional import gelu, layer_norm, linear

from rankmill.errors import ModelError
from rankmill.scoring.load import check_model, load_scorer
from rankmill.scoring.options import ScorerOptions
from tests.scoring.reference import all_pairs, reference_ids
from tests.scoring.test_refusals import edit_json, edit_weights

# config.json of jinaai/jina-reranker-v2-base-multilingual names no model_type, and these files
CODE = {
    "AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig",
    "AutoModel": "modeling_xlm_roberta.XLMRobertaModel",
    "AutoModelForSequenceClassification": "modeling_xlm_roberta.XLMRobertaForSequenceClassification",
}
HEADS, LAYERS, EPSILON, PAD = 2, 3, 1e-5, 1
FIRST = "roberta.encoder.layers.0"


@pytest.fixture
def folder(tiny: Mapping[str, Path], tmp_path: Path) -> Path:
    """A tiny XLM-RoBERTa, written the way Jina writes it."""
    folder = tmp_path / "jina"
    shutil.copytree(tiny["xlm-roberta"], folder)
    native = load_file(folder / "model.safetensors")
    state = {}
    for name in ("word", "position", "token_type"):
        key = f"roberta.embeddings.{name}_embeddings.weight"
        state[key] = native.pop(key)
    for end in ("weight", "bias"):
        state[f"roberta.emb_ln.{end}"] = native.pop(f"roberta.embeddings.LayerNorm.{end}")
        state[f"classifier.dense.{end}"] = native.pop(f"classifier.dense.{end}")
        state[f"classifier.out_proj.{end}"] = native.pop(f"classifier.out_proj.{end}")
        for n in range(LAYERS):
            new, old = f"roberta.encoder.layers.{n}", f"roberta.encoder.layer.{n}"
            attention = [native.pop(f"{old}.attention.self.{part}.{end}") for part in ("query", "key", "value")]
            state[f"{new}.mixer.Wqkv.{end}"] = torch.cat(attention)
            state[f"{new}.mixer.out_proj.{end}"] = native.pop(f"{old}.attention.output.dense.{end}")
            state[f"{new}.norm1.{end}"] = native.pop(f"{old}.attention.output.LayerNorm.{end}")
            state[f"{new}.mlp.fc1.{end}"] = native.pop(f"{old}.intermediate.dense.{end}")
            state[f"{new}.mlp.fc2.{end}"] = native.pop(f"{old}.output.dense.{end}")
            state[f"{new}.norm2.{end}"] = native.pop(f"{old}.output.LayerNorm.{end}")
    assert not native
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    del config["model_type"]
    extra = {"auto_map": CODE, "emb_pooler": None, "use_flash_attn": True, "position_embedding_type": "absolute"}
    (folder / "config.json").write_text(json.dumps({**config, **extra, "layer_norm_eps": EPSILON}))
    return folder


def forward(state: Mapping[str, torch.Tensor], ids: list[int]) -> float:
    """The logit of one pair, written down from Jina's modelling file: nothing of transformers, nothing padded."""

    def dense(name: str, x: torch.Tensor) -> torch.Tensor:
        return linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], EPSILON)

    embeddings = {name: state[f"roberta.embeddings.{name}_embeddings.weight"] for name in ("word", "position")}
    positions = torch.arange(len(ids)) + PAD + 1
    types = state["roberta.embeddings.token_type_embeddings.weight"][0]
    x = norm("roberta.emb_ln", embeddings["word"][torch.tensor(ids)] + embeddings["position"][positions] + types)
    for n in range(LAYERS):
        layer = f"roberta.encoder.layers.{n}"
        q, k, v = dense(f"{layer}.mixer.Wqkv", x).view(len(ids), 3, HEADS, -1).permute(1, 2, 0, 3)
        context = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1) @ v  # [HEADS, length, size / HEADS]
        attended = dense(f"{layer}.mixer.out_proj", context.transpose(0, 1).flatten(1))
        x = norm(f"{layer}.norm1", x + attended)
        x = norm(f"{layer}.norm2", x + dense(f"{layer}.mlp.fc2", gelu(dense(f"{layer}.mlp.fc1", x))))
    return float(dense("classifier.out_proj", torch.tanh(dense("classifier.dense", x[0]))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_to_its_own_arithmetic(folder: Path, dtype: torch.dtype) -> None:
    """In the stored types of a test and of the real model."""
    edit_weights(folder / "model.safetensors", lambda s: s.update({name: s[name].to(dtype) for name in s}))
    scorer = load_scorer(ScorerOptions(model=str(folder), batch_tokens=300))
    queries, texts = all_pairs()
    state = {name: tensor.double() for name, tensor in load_file(folder / "model.safetensors").items()}
    tokenizer: Any = transformers.XLMRobertaTokenizer.from_pretrained(folder)
    expected = [
        forward(state, reference_ids(tokenizer, query, text)) for query, text in zip(queries, texts, strict=True)
    ]
    assert np.std(expected) > 0.1
    assert np.abs(scorer.logits(scorer.encode(queries, texts)) - expected).max() < 1e-5


def test_its_card(folder: Path, tiny: Mapping[str, Path]) -> None:
    edit_json(folder / "tokenizer_config.json", model_max_length=100)
    card = check_model(ScorerOptions(model=str(folder)))
    native = check_model(ScorerOptions(model=str(tiny["xlm-roberta"])))
    assert (card.family, card.architecture) == ("xlm-roberta", "XLMRobertaForSequenceClassification")
    assert (card.max_length, card.activation) == (100, "sigmoid")
    assert card.parameters == native.parameters
    assert card.input_format == native.input_format == "<s> query </s> </s> document </s>"


def test_code_in_a_repository_of_its_own(folder: Path) -> None:
    """Where the files of the code lie does not matter: none of them is read."""
    there = {auto: f"jinaai/xlm-roberta-flash-implementation--{name}" for auto, name in CODE.items()}
    edit_json(folder / "config.json", auto_map=there, model_type="xlm-roberta")
    assert check_model(ScorerOptions(model=str(folder))).family == "xlm-roberta"


def test_its_code_is_not_run(folder: Path) -> None:
    for name in ("configuration_xlm_roberta", "modeling_xlm_roberta"):
        (folder / f"{name}.py").write_text(f"import pathlib\npathlib.Path({str(folder / 'ran')!r}).touch()\n")
    load_scorer(ScorerOptions(model=str(folder)))
    assert not (folder / "ran").exists()


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "rotary positions": (
        lambda f: edit_json(f / "config.json", position_embedding_type="rotary"),
        "position_embedding_type = 'rotary', which transformers' XLM-RoBERTa does not compute",
    ),
    "adapters": (
        lambda f: edit_json(f / "config.json", lora_adaptations=["retrieval.query"]),
        r"lora_adaptations = \['retrieval.query'\].*BAAI/bge-reranker-v2-m3",
    ),
    "tanh approximation": (lambda f: edit_json(f / "config.json", hidden_act="gelu_new"), "hidden_act = 'gelu_new'"),
    "silent": (lambda f: edit_json(f / "config.json", layer_norm_eps=None), "does not state layer_norm_eps"),
    "two labels": (lambda f: edit_json(f / "config.json", id2label={"0": "a", "1": "b"}), "has 2 labels"),
    "other code": (
        lambda f: edit_json(f / "config.json", auto_map={**CODE, "AutoConfig": "configuration_other.Config"}),
        "own Python code",
    ),
    "an embedding model": (
        lambda f: edit_json(f / "config.json", architectures=["XLMRobertaModel"]),
        "own Python code",
    ),
    "left over": (
        lambda f: edit_weights(f / "model.safetensors", lambda s: s.update({f"{FIRST}.mixer.rotary": torch.ones(2)})),
        f"weights that such a model has not: {FIRST}.mixer.rotary",
    ),
    "native beside its own": (
        lambda f: edit_weights(
            f / "model.safetensors", lambda s: s.update({"roberta.embeddings.LayerNorm.weight": torch.ones(32)})
        ),
        "weights that such a model has not: roberta.embeddings.LayerNorm.weight",
    ),
    "not three thirds": (
        lambda f: edit_weights(
            f / "model.safetensors", lambda s: s.update({f"{FIRST}.mixer.Wqkv.bias": torch.ones(97)})
        ),
        f"has not: {FIRST}.mixer.Wqkv.bias",
    ),
    "no head": (
        lambda f: edit_weights(f / "model.safetensors", lambda s: s.pop("classifier.out_proj.weight")),
        "no classification head",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(folder: Path, case: str) -> None:
    spoil, words = REFUSED[case]
    check_model(ScorerOptions(model=str(folder)))
    spoil(folder)
    with pytest.raises(ModelError, match=words):
        check_model(ScorerOptions(model=str(folder)))


def test_missing_weights_are_named(folder: Path) -> None:
    edit_weights(folder / "model.safetensors", lambda s: s.pop(f"{FIRST}.mixer.Wqkv.weight"))
    with pytest.raises(ModelError, match=r"layer\.0\.attention\.self\.key\.weight, .*query\.weight, .* are missing"):
        load_scorer(ScorerOptions(model=str(folder)))
