"""The model to train: what it starts from, and what is refused before the first step."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, DistilBertConfig, DistilBertModel

from rankmill.errors import ModelError, UsageError
from rankmill.scoring.int8 import is_int8, load_int8
from rankmill.training.model import load_body, served, write_model


def test_training_continues_from_int8_weights_head_included(tmp_path: Path, tiny_body: Path) -> None:
    model, tokenizer = load_body(str(tiny_body), dropout=0.0, seed=1)
    write_model(model, tokenizer, tmp_path, int8=True)
    again, _ = load_body(str(tmp_path), dropout=0.0, seed=2)  # another seed would draw another head
    assert is_int8(tmp_path / "model.safetensors")
    stored, loaded = load_int8(tmp_path / "model.safetensors"), again.state_dict()
    assert loaded.keys() == stored.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in loaded.items())
    assert torch.allclose(loaded["classifier.weight"], model.state_dict()["classifier.weight"], atol=1e-3)


def test_a_body_that_the_scorer_could_not_serve_is_refused(tmp_path: Path, tiny_body: Path) -> None:
    AutoTokenizer.from_pretrained(tiny_body).save_pretrained(tmp_path)
    config = DistilBertConfig(vocab_size=25, dim=32, n_layers=1, n_heads=2, hidden_dim=64, max_position_embeddings=64)
    DistilBertModel(config).save_pretrained(tmp_path)
    model, tokenizer = load_body(str(tmp_path), dropout=0.0, seed=0)
    with pytest.raises(ModelError, match="DistilBertForSequenceClassification, which this version cannot run"):
        served(model, tokenizer, 32)


def test_a_length_beyond_the_positions_is_refused(tiny_body: Path) -> None:
    model, tokenizer = load_body(str(tiny_body), dropout=0.0, seed=0)
    with pytest.raises(UsageError, match=r"--max-length 65 is more than the 64 tokens that the model .*body"):
        served(model, tokenizer, 65)
