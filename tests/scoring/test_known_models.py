"""What is understood of well-known rerankers, from the fields of their published files that decide it.

The weights are those of tiny models; config.json, tokenizer_config.json and the like say what the hub's files say.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer

from rankmill.errors import ModelError
from rankmill.scoring.load import check_model, load_encoder, load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.tokens import PairEncoder
from tests.scoring.reference import all_pairs, load_reference, reference_ids
from tests.scoring.test_refusals import edit_json, edit_weights

IDENTITY = "torch.nn.modules.linear.Identity"
XLM_R = {"pad_token_id": 1, "type_vocab_size": 1, "position_embedding_type": "absolute", "classifier_dropout": None}
DEBERTA_V3 = {
    "max_position_embeddings": 512,
    "type_vocab_size": 0,
    "position_biased_input": False,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "max_relative_positions": -1,
    "relative_attention": True,
}


@dataclass(frozen=True, slots=True)
class Known:
    """A model of the hub, and what its card must say."""

    family: str
    config: Mapping[str, Any]
    tokenizer_config: Mapping[str, Any]
    max_length: int
    activation: str
    pooling: str = "first token"
    segments: bool = False
    left_behind: tuple[str, ...] = field(default=())
    """Weights that the file holds and the network has no use for."""


MODELS = {
    "cross-encoder/ms-marco-MiniLM-L6-v2": Known(
        "bert",
        {"max_position_embeddings": 512, "type_vocab_size": 2, "sentence_transformers": {"activation_fn": IDENTITY}},
        {"model_max_length": 512, "do_lower_case": True, "tokenizer_class": "BertTokenizer"},
        max_length=512,
        activation="identity",
        segments=True,
        left_behind=("bert.embeddings.position_ids",),
    ),
    "cross-encoder/ms-marco-MiniLM-L-6-v2, before sentence-transformers 4": Known(
        "bert",
        {"max_position_embeddings": 512, "type_vocab_size": 2, "sbert_ce_default_activation_function": IDENTITY},
        {"model_max_length": 512, "do_lower_case": True, "tokenizer_class": "BertTokenizer"},
        max_length=512,
        activation="identity",
        segments=True,
    ),
    "cross-encoder/ms-marco-electra-base": Known(
        "electra",
        {"max_position_embeddings": 512, "type_vocab_size": 2, "sentence_transformers": {"activation_fn": IDENTITY}},
        {"model_max_length": 512, "do_lower_case": True, "tokenizer_class": "ElectraTokenizer"},
        max_length=512,
        activation="identity",
        segments=True,
        left_behind=("electra.embeddings.position_ids",),
    ),
    "BAAI/bge-reranker-base and -large": Known(
        "xlm-roberta",
        {**XLM_R, "max_position_embeddings": 514},
        {"model_max_length": 512, "tokenizer_class": "XLMRobertaTokenizer"},
        max_length=512,
        activation="sigmoid",
        left_behind=("roberta.embeddings.position_ids",),
    ),
    "BAAI/bge-reranker-v2-m3": Known(
        "xlm-roberta",
        {**XLM_R, "max_position_embeddings": 8194},
        {"model_max_length": 8192, "tokenizer_class": "XLMRobertaTokenizer"},
        max_length=8192,
        activation="sigmoid",
    ),
    "BAAI/bge-reranker-v2-m3, with a tokenizer that states no length": Known(
        "xlm-roberta",
        {**XLM_R, "max_position_embeddings": 8194},
        {"model_max_length": 1000000000000000019884624838656},
        max_length=8192,
        activation="sigmoid",
    ),
    "mixedbread-ai/mxbai-rerank-xsmall-v1, -base-v1 and -large-v1": Known(
        "deberta-v2",
        DEBERTA_V3,
        {"model_max_length": 512, "tokenizer_class": "DebertaV2Tokenizer", "do_lower_case": False},
        max_length=512,
        activation="sigmoid",
        left_behind=("deberta.embeddings.position_ids",),
    ),
    "Alibaba-NLP/gte-reranker-modernbert-base": Known(
        "modernbert",
        {"max_position_embeddings": 8192, "classifier_pooling": "mean"},
        {"model_max_length": 8192, "model_input_names": ["input_ids", "attention_mask"]},
        max_length=8192,
        activation="sigmoid",
        pooling="mean of all tokens",
    ),
}


@pytest.fixture
def folder(tiny: Mapping[str, Path], tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    known = MODELS[request.param]
    folder = tmp_path / "model"
    shutil.copytree(tiny[known.family], folder)
    edit_json(folder / "config.json", **known.config)
    edit_json(folder / "tokenizer_config.json", **known.tokenizer_config)
    return folder


@pytest.mark.parametrize(("folder", "name"), [(name, name) for name in MODELS], indirect=["folder"])
def test_its_card(folder: Path, name: str) -> None:
    known = MODELS[name]
    card = check_model(ScorerOptions(model=str(folder)))
    assert (card.kind, card.family) == ("cross-encoder", known.family)
    assert (card.max_length, card.activation) == (known.max_length, known.activation)
    assert card.max_query_tokens == (known.max_length - (4 if known.family == "xlm-roberta" else 3)) // 2
    assert card.pooling == known.pooling
    assert card.input_format.endswith("segments 0 and 1") == known.segments


@pytest.mark.parametrize("name", [name for name, known in MODELS.items() if known.left_behind])
def test_buffers_of_older_releases_are_passed_over(tiny: Mapping[str, Path], tmp_path: Path, name: str) -> None:
    """Before release 4.31, transformers saved position_ids, a constant, among the weights."""
    known = MODELS[name]
    shutil.copytree(tiny[known.family], tmp_path, dirs_exist_ok=True)
    before = check_model(ScorerOptions(model=str(tmp_path)))
    edit_weights(
        tmp_path / "model.safetensors", lambda s: s.update({key: torch.arange(128)[None] for key in known.left_behind})
    )
    scorer = load_scorer(ScorerOptions(model=str(tmp_path)))
    assert scorer.logits(scorer.encode(["a"], ["b"])).shape == (1,)
    assert check_model(ScorerOptions(model=str(tmp_path))).parameters == before.parameters


def test_models_for_entailment_are_refused(tiny: Mapping[str, Path], tmp_path: Path) -> None:
    """cross-encoder/nli-deberta-v3-*: the right architecture for another question."""
    shutil.copytree(tiny["deberta-v2"], tmp_path, dirs_exist_ok=True)
    edit_json(tmp_path / "config.json", id2label={"0": "contradiction", "1": "entailment", "2": "neutral"})
    with pytest.raises(ModelError, match=r"has 3 labels .* such as one for entailment"):
        check_model(ScorerOptions(model=str(tmp_path)))


def test_deberta_tokenizes_as_its_own_file_says(tiny: Mapping[str, Path], tmp_path: Path) -> None:
    """DebertaV2Tokenizer of transformers 5 leaves out the file's normalizer, with which the models were trained."""
    shutil.copytree(tiny["deberta-v2"], tmp_path, dirs_exist_ok=True)
    edit_json(tmp_path / "tokenizer_config.json", tokenizer_class="DebertaV2Tokenizer")
    file = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    query, text = "  \uff46\uff4f\uff58 ", "\u2163 lazy\ndog"  # full-width letters, a Roman numeral
    assert file.encode(query, add_special_tokens=False).ids == file.encode("fox", add_special_tokens=False).ids
    pairs = load_encoder(ScorerOptions(model=str(tmp_path))).encode([query], [text])
    assert pairs.token_ids.tolist() == file.encode(query, text).ids


def test_deberta_saved_by_transformers_5(tiny: Mapping[str, Path], tmp_path: Path) -> None:
    """A model that was fine-tuned and saved today has another normalizer in its file; that file counts."""
    shutil.copytree(tiny["deberta-v2"], tmp_path, dirs_exist_ok=True)
    vocabulary = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    saved = transformers.DebertaV2Tokenizer(vocab=[(piece, score) for piece, score in vocabulary])
    saved.save_pretrained(tmp_path)
    tokenizer, _ = load_reference(tmp_path)
    assert type(tokenizer).__name__ == "DebertaV2Tokenizer"
    encoder = load_encoder(ScorerOptions(model=str(tmp_path)))
    assert isinstance(encoder, PairEncoder)
    assert encoder._tokenizer.may_cut
    queries, texts = all_pairs()
    pairs = encoder.encode(queries, texts)
    expected = [reference_ids(tokenizer, query, text) for query, text in zip(queries, texts, strict=True)]
    assert pairs.token_ids.tolist() == [token for ids in expected for token in ids]
