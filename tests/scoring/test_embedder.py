"""Vectors of single texts: equal to sentence-transformers' and to the scorer's own logits."""

from pathlib import Path

import numpy as np
import pytest

from rankmill.errors import ModelError
from rankmill.scoring.embedder import load_embedder
from rankmill.scoring.load import load_scorer
from rankmill.scoring.options import ScorerOptions
from tests.scoring.tiny_embedders import save_bi_encoder
from tests.tiny_models import save_tiny_model

TEXTS = ["the dog", "", "a cat sat on a mat and purred for a long time", "the dog", "x " * 300]


@pytest.mark.parametrize("shape", [{}, {"dense": 12, "similarity_fn_name": "dot"}, {"pooling": "cls"}])
def test_inner_products_are_the_scorers_logits(tmp_path: Path, shape: dict[str, object]) -> None:
    prompts = {"query": "query: ", "document": "passage: "}
    folder = save_bi_encoder(tmp_path / "model", prompts=prompts, **shape)  # type: ignore[arg-type]
    options = ScorerOptions(model=str(folder), precision="float32")
    embedder, scorer = load_embedder(options), load_scorer(options)
    queries, documents = embedder.queries(TEXTS), embedder.documents(TEXTS)
    assert queries.dtype == documents.dtype == np.float32
    assert queries.shape == documents.shape == (len(TEXTS), embedder.dimension)
    assert not np.allclose(queries, documents)  # each side has its prompt
    pairs = [(i, j) for i in range(len(TEXTS)) for j in range(len(TEXTS))]
    logits = scorer.logits(scorer.encode([TEXTS[i] for i, _ in pairs], [TEXTS[j] for _, j in pairs]))
    np.testing.assert_allclose((queries @ documents.T).reshape(-1), logits, atol=1e-5)
    assert embedder.card.fingerprint == scorer.fingerprint


def test_vectors_are_those_of_sentence_transformers(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    folder = save_bi_encoder(tmp_path / "model")
    model = library.SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    expected = model.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(load_embedder(ScorerOptions(model=str(folder))).documents(TEXTS), expected, atol=1e-5)


def test_no_texts_no_vectors(tmp_path: Path) -> None:
    embedder = load_embedder(ScorerOptions(model=str(save_bi_encoder(tmp_path / "model"))))
    assert embedder.documents([]).shape == (0, embedder.dimension)


def test_a_cross_encoder_is_refused(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model", "bert")
    with pytest.raises(ModelError, match=r"cross-encoder.*bi-encoder"):
        load_embedder(ScorerOptions(model=str(tmp_path / "model")))
