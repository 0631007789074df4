"""Padding-free batches: what a GPU runs, here with attention computed pair by pair on the CPU."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from rankmill.scoring.batches import packed
from rankmill.scoring.engines.load import load_packed
from rankmill.scoring.families.classifier import Classifier
from rankmill.scoring.load import read_model
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.pair_scorer import PairScorer
from rankmill.types import EncodedPairs
from tests.scoring.reference import all_pairs, reference_logits
from tests.tiny_models import FAMILIES

PACKED = [family for family in FAMILIES if family != "deberta-v2"]  # its attention is its own


def packed_scorer(folder: Path, precision: str = "float32", batch_tokens: int = 500) -> PairScorer:
    options = ScorerOptions(model=str(folder), precision=precision, batch_tokens=batch_tokens)
    model = read_model(options)
    assert isinstance(model, Classifier)
    engine = load_packed(model, precision, torch.device("cpu"))
    return PairScorer(model.card(precision), model.encoder(), engine, options)


@pytest.mark.parametrize("family", PACKED)
def test_equal_to_a_bare_loop(tiny: Mapping[str, Path], family: str) -> None:
    """Positions that went on from pair to pair, or attention across pairs, would show here."""
    queries, texts = all_pairs()
    scorer = packed_scorer(tiny[family])
    longer = [text * 2 for text in texts]  # ModernBERT's pairs must be longer than its window
    kept = np.flatnonzero(~scorer.encode(queries, longer).truncated).tolist()
    queries, texts = [queries[i] for i in kept], [longer[i] for i in kept]
    pairs = scorer.encode(queries, texts)
    assert len(pairs) > 20
    assert int(pairs.lengths.max()) > 60
    logits = scorer.logits(pairs)
    expected = reference_logits(tiny[family], queries, texts)
    assert expected.std() > 0.1
    assert np.abs(logits - expected).max() < 1e-5


@pytest.mark.parametrize("family", PACKED)
def test_bfloat16_body_keeps_a_float32_head(tiny: Mapping[str, Path], family: str) -> None:
    queries = [f"query {i}" for i in range(40)]
    texts = [f"Water boils at {i} degrees" for i in range(40)]
    exact, narrow = packed_scorer(tiny[family]), packed_scorer(tiny[family], "bfloat16")
    expected, found = (scorer.logits(scorer.encode(queries, texts)) for scorer in (exact, narrow))
    difference = np.abs(found - expected)
    assert 0 < difference.max() < 5e-2
    assert difference.mean() < 1e-2
    assert len(np.unique(found)) == len(np.unique(expected))


def test_the_arrays() -> None:
    pairs = EncodedPairs(
        token_ids=np.array([10, 11, 12, 20, 21, 30, 31, 32, 33], dtype=np.int32),
        offsets=np.array([0, 3, 5, 9]),
        document_starts=np.array([2, 1, 2], dtype=np.int32),
        truncated=np.zeros(3, dtype=np.bool_),
    )
    arrays = packed(pairs, np.array([2, 0]), first_position=2, segments=True)
    assert arrays["input_ids"].tolist() == [30, 31, 32, 33, 10, 11, 12]
    assert arrays["position_ids"].tolist() == [2, 3, 4, 5, 2, 3, 4]
    assert arrays["token_type_ids"].tolist() == [0, 0, 1, 1, 0, 0, 1]
    assert arrays["offsets"].tolist() == [0, 4, 7]
