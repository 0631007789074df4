"""Cross-encoders in modules of sentence-transformers (ettin-reranker): read as what they are, equal to the library."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from rankmill.errors import ModelError, UsageError
from rankmill.scoring.activation import activate
from rankmill.scoring.load import check_model, load_encoder, load_scorer
from rankmill.scoring.options import ScorerOptions
from tests.scoring.reference import all_pairs
from tests.scoring.tiny_embedders import HIDDEN, save_body

SENTENCE_TRANSFORMERS = "config_sentence_transformers.json"
BODIES = ("bert", "electra", "modernbert", "mpnet", "roberta", "xlm-roberta")


def save_modular(folder: Path, family: str = "modernbert", pooling: str = "cls", *, norm: bool = True) -> Path:
    """Write one as the library saves it: network, pooling, dense layer with GELU, maybe a norm, dense layer to 1."""
    library = pytest.importorskip("sentence_transformers")
    from sentence_transformers.base.modules import Dense, Transformer  # noqa: PLC0415 - part of it
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling  # noqa: PLC0415

    save_body(folder / "body", family)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        modules = [
            Transformer(str(folder / "body")),
            Pooling(HIDDEN, pooling_mode=pooling),
            Dense(HIDDEN, HIDDEN, bias=False, activation_function=torch.nn.GELU()),
            *([LayerNorm(HIDDEN)] if norm else []),
            Dense(HIDDEN, 1, activation_function=torch.nn.Identity(), module_output_name="scores"),
        ]
        torch.nn.init.normal_(modules[-1].linear.weight)  # or every pair has nearly the same logit
        if norm:
            torch.nn.init.normal_(modules[3].norm.weight, 2.0)
            torch.nn.init.normal_(modules[3].norm.bias)
    model = library.CrossEncoder(modules=modules, activation_fn=torch.nn.Identity())
    model.save_pretrained(str(folder / "model"))
    return folder / "model"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shape of ettin-reranker; read only."""
    return save_modular(tmp_path_factory.mktemp("modular"))


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def reference(folder: Path, queries: list[str], texts: list[str]) -> NDArray[np.float32]:
    """What sentence-transformers gives, one pair at a time."""
    library = pytest.importorskip("sentence_transformers")
    model = library.CrossEncoder(str(folder), device="cpu", local_files_only=True)
    found: NDArray[np.float32] = model.predict(
        list(zip(queries, texts, strict=True)), batch_size=1, activation_fn=torch.nn.Identity()
    )
    return found


def logits(folder: Path, queries: list[str], texts: list[str], **options: Any) -> NDArray[np.float32]:
    scorer = load_scorer(ScorerOptions(model=str(folder), **options))
    return scorer.logits(scorer.encode(queries, texts))


SHAPES: dict[str, dict[str, Any]] = {
    **{f"{family}, first token": {"family": family} for family in BODIES},
    "mean": {"pooling": "mean"},
    "maximum": {"pooling": "max"},
    "last token": {"pooling": "lasttoken"},
    # without a norm, every module of it is one that bi-encoders have too
    "no norm": {"norm": False},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_to_sentence_transformers(tmp_path: Path, shape: str) -> None:
    folder = save_modular(tmp_path, **SHAPES[shape])
    queries, texts = (list(side) for side in all_pairs())
    expected = reference(folder, queries, texts)
    assert float(np.ptp(expected)) > 0.1  # or equality would mean little
    np.testing.assert_allclose(logits(folder, queries, texts), expected, rtol=1e-5, atol=1e-5)
    assert check_model(ScorerOptions(model=str(folder))).kind == "cross-encoder"


def test_a_card(folder: Path) -> None:
    card = check_model(ScorerOptions(model=str(folder)))
    assert (card.kind, card.family, card.architecture) == ("cross-encoder", "modernbert", "ModernBertModel")
    assert card.pooling == "first token, dense layer, norm, dense layer"
    assert card.input_format == "[CLS] query [SEP] document [SEP]"
    assert (card.activation, card.max_length) == ("identity", 128)
    weights = list(folder.rglob("model.safetensors"))
    assert len(weights) == 4
    assert card.parameters == sum(tensor.numel() for path in weights for tensor in load_file(path).values())


def test_the_activation_is_a_sigmoid_where_none_is_stated(folder: Path, tmp_path: Path) -> None:
    copy = copy_of(folder, tmp_path)
    edit_json(copy / SENTENCE_TRANSFORMERS, activation_fn=None)
    assert load_scorer(ScorerOptions(model=str(copy))).activation == "sigmoid"
    library = pytest.importorskip("sentence_transformers")
    expected = library.CrossEncoder(str(copy), device="cpu", local_files_only=True).predict([("water", "sea level")])
    found = activate(logits(copy, ["water"], ["sea level"]), "sigmoid")
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("budget", [1, 100, 2_048])
def test_company_order_and_budget_do_not_matter(folder: Path, budget: int) -> None:
    queries, texts = (list(side) for side in all_pairs())
    alone = np.concatenate(
        [logits(folder, [query], [text]) for query, text in zip(queries[:6], texts[:6], strict=True)]
    )
    together = logits(folder, queries[::-1], texts[::-1], batch_tokens=budget)[::-1]
    np.testing.assert_allclose(together[:6], alone, rtol=1e-5, atol=1e-5)


def test_long_documents_in_chunks_and_a_pickled_encoder(folder: Path) -> None:
    options = ScorerOptions(model=str(folder), long_documents="chunk", max_length=32)
    encoder = load_encoder(options)
    pairs = encoder.encode(["water"], ["Water boils at sea level. " * 20])
    assert pairs.chunks is not None
    assert pairs.chunks.counts[0] > 2
    again = pickle.loads(pickle.dumps(encoder)).encode(["water"], ["Water boils at sea level. " * 20])  # noqa: S301
    assert again.token_ids.tolist() == pairs.token_ids.tolist()
    assert load_scorer(options).logits(pairs).shape == (1,)


def test_bfloat16_body_keeps_a_float32_head(folder: Path) -> None:
    queries, texts = (list(side) for side in all_pairs())
    wide, narrow = (logits(folder, queries, texts, precision=name) for name in ("float32", "bfloat16"))
    assert np.abs(wide - narrow).max() < 0.3  # of a range of several units
    assert len(np.unique(narrow)) > 0.9 * len(np.unique(wide))  # a bfloat16 head has 8 bits: logits would tie


def change_weights(path: Path) -> None:
    state = load_file(path)
    save_file({name: tensor + 1 for name, tensor in state.items()}, path)


@pytest.mark.parametrize(
    "change",
    [
        lambda f: change_weights(f / "2_Dense" / "model.safetensors"),
        lambda f: change_weights(f / "3_LayerNorm" / "model.safetensors"),
        lambda f: edit_json(f / "2_Dense" / "config.json", activation_function="torch.nn.modules.activation.Tanh"),
        lambda f: edit_json(f / "1_Pooling" / "config.json", pooling_mode="mean"),
        lambda f: edit_json(f / SENTENCE_TRANSFORMERS, activation_fn="torch.nn.modules.activation.Sigmoid"),
    ],
)
def test_fingerprints_differ_where_scores_do(folder: Path, tmp_path: Path, change: Callable[[Path], Any]) -> None:
    copy = copy_of(folder, tmp_path)
    before = check_model(ScorerOptions(model=str(copy))).fingerprint
    assert before == check_model(ScorerOptions(model=str(folder))).fingerprint
    change(copy)
    assert check_model(ScorerOptions(model=str(copy))).fingerprint != before


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "two scores": (
        lambda f: save_file(
            {"linear.weight": torch.ones(2, HIDDEN), "linear.bias": torch.ones(2)}, f / "4_Dense" / "model.safetensors"
        ),
        "gives 2 numbers; a reranker's gives exactly 1",
    ),
    "no score": (
        lambda f: edit_json(f / "4_Dense" / "config.json", module_output_name="sentence_embedding"),
        "4_Dense .* makes 'sentence_embedding' of 'sentence_embedding'",
    ),
    "a detour": (
        lambda f: edit_json(f / "2_Dense" / "config.json", module_output_name="other"),
        "2_Dense .* makes 'other' of 'sentence_embedding'",
    ),
    "norm of another width": (
        lambda f: save_file(
            {"norm.weight": torch.ones(8), "norm.bias": torch.ones(8)}, f / "3_LayerNorm" / "model.safetensors"
        ),
        r"layer normalisation .*3_LayerNorm.* does not have the shape \(32,\)",
    ),
    "norm without bias": (
        lambda f: save_file({"norm.weight": torch.ones(HIDDEN)}, f / "3_LayerNorm" / "model.safetensors"),
        "3_LayerNorm .* holds the weights norm.weight; norm.bias and norm.weight",
    ),
    "pooling last": (
        lambda f: (f / "modules.json").write_text(json.dumps(json.loads((f / "modules.json").read_text())[:2])),
        "known is a Transformer with one Pooling right after it and a Dense at the end",
    ),
    "prompt": (
        lambda f: edit_json(f / SENTENCE_TRANSFORMERS, prompts={"q": "find: "}, default_prompt_name="q"),
        "puts the prompt 'find: ' before its input",
    ),
    "activation": (
        lambda f: edit_json(f / SENTENCE_TRANSFORMERS, activation_fn="my.Act"),
        "asks for the activation 'my.Act'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(folder: Path, tmp_path: Path, case: str) -> None:
    copy = copy_of(folder, tmp_path)
    spoil, words = REFUSED[case]
    spoil(copy)
    with pytest.raises(ModelError, match=words):
        check_model(ScorerOptions(model=str(copy)))


def test_engine_that_cannot_take_it(folder: Path) -> None:
    with pytest.raises(UsageError, match="--engine openvino"):
        load_scorer(ScorerOptions(model=str(folder), engine="openvino"))


def copy_of(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target / "copy"))
