"""The scorer's logits are the model's logits, whatever shares a batch with whom."""

import inspect
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from rankmill.errors import NonFiniteScoreError, UsageError
from rankmill.scoring.activation import activate
from rankmill.scoring.int8 import load_int8, save_int8
from rankmill.scoring.load import check_model, load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.scorer import Scorer
from tests.scoring.reference import all_pairs, reference_logits
from tests.tiny_models import FAMILIES, save_tiny_model, tiny_network


def scorer_for(folder: Path, **options: Any) -> Scorer:
    return load_scorer(ScorerOptions(model=str(folder), **options))


def score(scorer: Scorer, queries: list[str], texts: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return scorer.logits(scorer.encode(queries, texts))


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_to_a_bare_loop(tiny: Mapping[str, Path], family: str) -> None:
    queries, texts = all_pairs()
    logits = score(scorer_for(tiny[family], batch_tokens=300), queries, texts)
    expected = reference_logits(tiny[family], queries, texts)
    assert expected.std() > 0.1  # a constant would prove nothing
    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_to_a_bare_loop_where_the_document_is_cut(tiny: Mapping[str, Path], family: str) -> None:
    queries = ["how do I sort a list", "Water?", "x"]
    texts = ["Быстрая коричневая лиса, " * 40, "sea level " * 200, "敏捷的棕色狐狸" * 60]
    scorer = scorer_for(tiny[family])
    pairs = scorer.encode(queries, texts)
    assert pairs.truncated.all()
    assert pairs.lengths.tolist() == [128] * 3
    # with a query that fits, longest_first cuts the document only: both rules agree
    expected = reference_logits(tiny[family], queries, texts, truncation="only_second", max_length=128)
    assert np.abs(scorer.logits(pairs) - expected).max() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_company_order_and_budget_do_not_matter(tiny: Mapping[str, Path], family: str) -> None:
    queries, texts = all_pairs()
    together = score(scorer_for(tiny[family], batch_tokens=4096), queries, texts)
    alone = scorer_for(tiny[family], batch_tokens=1)
    one_by_one = [float(score(alone, [query], [text])[0]) for query, text in zip(queries, texts, strict=True)]
    assert np.abs(together - one_by_one).max() < 1e-5
    order = np.random.default_rng(0).permutation(len(queries))
    shuffled = score(scorer_for(tiny[family], batch_tokens=200), [queries[i] for i in order], [texts[i] for i in order])
    assert np.abs(together[order] - shuffled).max() < 1e-5


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "modernbert", "deberta-v2"])
def test_equal_to_sentence_transformers(tiny: Mapping[str, Path], family: str) -> None:
    cross_encoder: Any = pytest.importorskip("sentence_transformers").CrossEncoder
    queries, texts = all_pairs()
    model = cross_encoder(str(tiny[family]), device="cpu")
    pairs = list(zip(queries, texts, strict=True))
    scorer = scorer_for(tiny[family])
    logits = score(scorer, queries, texts)
    raw = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    assert np.abs(logits - raw).max() < 1e-5
    scores = model.predict(pairs, show_progress_bar=False)
    assert np.abs(activate(logits, scorer.activation) - scores).max() < 1e-6


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("family", ["bert", "modernbert", "xlm-roberta"])
def test_lower_case_that_sentence_transformers_makes(tiny: Mapping[str, Path], tmp_path: Path, family: str) -> None:
    cross_encoder: Any = pytest.importorskip("sentence_transformers").CrossEncoder
    shutil.copytree(tiny[family], tmp_path, dirs_exist_ok=True)
    settings = {"transformer_task": "sequence-classification", "max_seq_length": 100, "do_lower_case": True}
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps(settings))
    if family == "bert":  # whose tokenizer lowers letters, where nothing says otherwise
        stated = json.loads((tmp_path / "tokenizer_config.json").read_text())
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({**stated, "do_lower_case": False}))
    pairs = [("HOW do I", "Sort A List"), ("how do i", "sort a list"), ("Où est la BIBLIOTHÈQUE", "ЛИСА Fox")]
    queries, texts = (list(side) for side in zip(*pairs, strict=True))
    scorer = scorer_for(tmp_path)
    logits = score(scorer, queries, texts)
    assert abs(logits[0] - logits[1]) < 1e-6
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    (tmp_path / "modules.json").write_text(json.dumps([module]))
    (tmp_path / "config_sentence_transformers.json").write_text('{"model_type": "CrossEncoder"}')
    model = cross_encoder(str(tmp_path), device="cpu")
    raw = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    assert np.abs(logits - raw).max() < 1e-5
    as_written = scorer_for(tiny[family])
    assert family == "bert" or np.abs(logits - score(as_written, queries, texts)).max() > 0.01


def test_nothing_in_nothing_out(tiny: Mapping[str, Path]) -> None:
    scorer = scorer_for(tiny["bert"])
    pairs = scorer.encode([], [])
    assert len(pairs) == 0
    logits = scorer.logits(pairs)
    assert logits.shape == (0,)
    assert logits.dtype == np.float32


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_modernbert_pools_as_its_config_says(tmp_path: Path, pooling: str) -> None:
    """With pairs eight times as long as the local attention window, padded to different lengths."""
    folder = save_tiny_model(tmp_path, "modernbert")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"classifier_pooling": "mean"', f'"classifier_pooling": "{pooling}"'))
    queries, texts = ["water", "fox"] * 2, ["sea level " * 30, "lazy dog", "brown fox jumps over " * 9, ""]
    logits = score(scorer_for(folder, batch_tokens=1000), queries, texts)
    expected = reference_logits(folder, queries, texts)
    assert np.abs(logits - expected).max() < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_stored_narrow_are_computed_wide(tmp_path: Path, tiny: Mapping[str, Path], dtype: torch.dtype) -> None:
    shutil.copytree(tiny["bert"], tmp_path, dirs_exist_ok=True)
    narrow = {name: tensor.to(dtype) for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    save_file(narrow, tmp_path / "model.safetensors", metadata={"format": "pt"})
    queries, texts = all_pairs()
    logits = score(scorer_for(tmp_path), queries, texts)
    network = tiny_network("bert", _rows(narrow))
    network.load_state_dict({name: tensor.float() for name, tensor in narrow.items()})
    wide = tmp_path / "wide"
    shutil.copytree(tiny["bert"], wide)
    network.save_pretrained(wide)
    assert np.abs(logits - reference_logits(wide, queries, texts)).max() < 1e-5


def _rows(state: dict[str, torch.Tensor]) -> int:
    return len(state["bert.embeddings.word_embeddings.weight"])


def test_weights_stored_as_int8_rows(tmp_path: Path, tiny: Mapping[str, Path]) -> None:
    """The built-in model's format: the same logits as the float32 file that it decodes to, and the same card."""
    folders = [Path(shutil.copytree(tiny["bert"], tmp_path / name)) for name in ("packed", "decoded")]
    files = [folder / "model.safetensors" for folder in folders]
    save_int8(load_file(files[0]), files[0])
    save_file(load_int8(files[0]), files[1], metadata={"format": "pt"})
    packed, decoded = (scorer_for(folder) for folder in folders)
    pairs = packed.encode(*all_pairs())
    assert np.abs(packed.logits(pairs) - decoded.logits(pairs)).max() < 1e-6
    cards = [check_model(ScorerOptions(model=str(folder))) for folder in folders]
    assert [card.stored_dtype for card in cards] == ["I8", "F32"]
    assert cards[0].parameters == cards[1].parameters
    assert cards[0].fingerprint != cards[1].fingerprint


def test_the_built_in_model_on_real_text() -> None:
    """Docstrings of this interpreter, cut where they are too long, against a bare loop over its decoded weights."""
    scorer = load_scorer(ScorerOptions())
    folder = check_model(ScorerOptions()).folder
    assert folder is not None
    texts = [inspect.getdoc(thing) or "" for thing in (sorted, str.split, open, zip, inspect, Path, dict.update, print)]
    queries = ["how do I sort a list in descending order", "split a string at commas"]
    pairs = scorer.encode([query for query in queries for _ in texts], texts * len(queries))
    assert pairs.truncated.any()
    assert not pairs.truncated.all()
    config = transformers.BertConfig.from_pretrained(folder)
    build: Any = transformers.BertForSequenceClassification
    network = build(config).eval()
    network.load_state_dict(load_int8(folder / "model.safetensors"))
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = (
        tokenizer([query], [text], truncation="only_second", max_length=512, return_tensors="pt")
        for query in queries
        for text in texts
    )
    with torch.no_grad():
        expected = np.asarray([float(network(**pair).logits[0, 0]) for pair in inputs])
    assert np.abs(scorer.logits(pairs) - expected).max() < 1e-4
    assert expected[: len(texts)].argmax() == 0
    assert expected[len(texts) :].argmax() == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_body_keeps_a_float32_head(tiny: Mapping[str, Path], family: str) -> None:
    queries = [f"query {i}" for i in range(40)]
    texts = [f"Water boils at {i} degrees" for i in range(40)]
    exact = score(scorer_for(tiny[family]), queries, texts)
    narrow = score(scorer_for(tiny[family], precision="bfloat16"), queries, texts)
    difference = np.abs(narrow - exact)
    assert 0 < difference.max() < 5e-2
    assert difference.mean() < 1e-2
    # 8 bits of a bfloat16 logit would leave about ten values between the smallest and the largest of these
    assert len(np.unique(narrow)) == len(np.unique(exact))


def test_a_pair_that_gives_nan_is_named(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, "bert")
    scorer = scorer_for(folder)
    plain, poisoned = scorer.encode(["water"], ["dog"]), scorer.encode(["water"], ["z"])
    token = int((set(poisoned.token_ids.tolist()) - set(plain.token_ids.tolist())).pop())
    weights = load_file(folder / "model.safetensors")
    weights["bert.embeddings.word_embeddings.weight"][token] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    scorer = scorer_for(folder, batch_tokens=1)
    with pytest.raises(NonFiniteScoreError, match=r"2 of 4 pairs \(positions 1, 3\)") as caught:
        score(scorer, ["water"] * 4, ["dog", "z", "dog at sea level", "lower z"])
    assert caught.value.pairs == (1, 3)


def test_threads_are_set() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        options = ScorerOptions(threads=1)
        from rankmill.scoring.engines.torch_padded import set_up_torch  # noqa: PLC0415

        set_up_torch(options)
        assert torch.get_num_threads() == 1
        set_up_torch(replace(options, threads=None))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there_is_refused(tiny: Mapping[str, Path]) -> None:
    with pytest.raises(UsageError, match="torch sees no GPU here; use --device auto or cpu"):
        scorer_for(tiny["bert"], device="cuda")
    with pytest.raises(UsageError, match="float16 needs a GPU"):
        scorer_for(tiny["bert"], precision="float16")


def test_deterministic_gives_the_same_bits(tiny: Mapping[str, Path]) -> None:
    try:
        scorer = scorer_for(tiny["bert"], deterministic=True)
        assert torch.are_deterministic_algorithms_enabled()
        pairs = scorer.encode(*all_pairs())
        assert scorer.logits(pairs).tobytes() == scorer.logits(pairs).tobytes()
    finally:
        torch.use_deterministic_algorithms(False)
