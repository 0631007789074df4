"""The two lines of Python: the reference's order and logits, from any iterable, with sentences for mistakes."""

import inspect
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import rankmill
from rankmill.errors import NonFiniteScoreError, UsageError
from rankmill.scoring.activation import activate
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.reranker import Reranker
from tests.scoring.reference import QUERIES, TEXTS, reference_logits

LIBRARY = Path(__file__).parents[2] / "lib"
QUERY = QUERIES[0]


@pytest.fixture(scope="module")
def reranker(tiny: Mapping[str, Path]) -> Reranker:
    return rankmill.load(str(tiny["bert"]), threads=1)


def test_a_ranking_is_the_reference_sorted(tiny: Mapping[str, Path], reranker: Reranker) -> None:
    logits = reference_logits(tiny["bert"], [QUERY] * len(TEXTS), TEXTS)
    ranking = reranker.rank(QUERY, TEXTS)
    assert [found.index for found in ranking] == np.argsort(-logits, kind="stable").tolist()
    assert [found.document for found in ranking] == [TEXTS[found.index] for found in ranking]
    assert [found.logit for found in ranking] == pytest.approx(sorted(logits, reverse=True), abs=1e-4)
    expected = activate(np.asarray([found.logit for found in ranking], dtype=np.float32), "sigmoid")
    assert [found.score for found in ranking] == expected.tolist()
    assert not any(found.truncated for found in ranking)
    assert {(found.best_start, found.best_end) for found in ranking} == {(None, None)}


def test_equal_documents_keep_their_order(reranker: Reranker) -> None:
    ranking = reranker.rank(QUERY, ["x"] * 5)
    assert [found.index for found in ranking] == [0, 1, 2, 3, 4]


def test_any_iterable_will_do(reranker: Reranker) -> None:
    whole = reranker.rank(QUERY, TEXTS)
    assert reranker.rank(QUERY, (text for text in TEXTS)) == whole
    assert reranker.rank(QUERY, dict.fromkeys(TEXTS).keys(), top_k=3) == whole[:3]
    assert reranker.rank(QUERY, TEXTS, top_k=100) == whole
    assert reranker.rank(QUERY, []) == []
    assert reranker.rank("", [""])[0].index == 0


def test_scores_of_pairs_come_in_their_order(reranker: Reranker) -> None:
    pairs = [(query, text) for query in QUERIES for text in TEXTS]
    scores = reranker.score(iter(pairs))
    assert (scores.dtype, scores.shape) == (np.dtype(np.float32), (len(pairs),))
    ranked = {found.index: found.score for found in reranker.rank(QUERY, TEXTS)}
    assert scores[: len(TEXTS)].tolist() == pytest.approx([ranked[i] for i in range(len(TEXTS))], abs=1e-5)
    assert reranker.score([]).shape == (0,)


@pytest.mark.parametrize("slice_pairs", [1, 7, 1000])
def test_slices_do_not_matter(reranker: Reranker, slice_pairs: int) -> None:
    pairs = [(query, text) for query in QUERIES for text in TEXTS]
    parts = list(reranker.stream(iter(pairs), slice_pairs))
    assert [len(part) for part in parts[:-1]] == [slice_pairs] * (len(parts) - 1)
    whole = next(reranker.stream(pairs))
    np.testing.assert_allclose(np.concatenate([part.logits for part in parts]), whole.logits, atol=1e-5)


def test_activations(tiny: Mapping[str, Path], reranker: Reranker) -> None:
    raw = Reranker(reranker.scorer, "raw").rank(QUERY, TEXTS)
    assert [found.score for found in raw] == [found.logit for found in raw]
    assert Reranker(reranker.scorer, "sigmoid").rank(QUERY, TEXTS) == reranker.rank(QUERY, TEXTS)
    with pytest.raises(UsageError, match="'softmax'; it must be one of model, raw, sigmoid"):
        rankmill.load(str(tiny["bert"]), activation=cast("Any", "softmax"))


def test_the_best_chunk_is_told(tiny: Mapping[str, Path]) -> None:
    reranker = rankmill.load(str(tiny["bert"]), long_documents="chunk", max_length=40, threads=1)
    long = " ".join("?.,;=-:()_"[i * i % 7 + i % 3] for i in range(200))  # a token each: no chunk begins inside a word
    found, short = sorted(reranker.rank("fox", [long, "x"]), key=lambda ranked: ranked.index)
    assert found.best_start is not None
    assert found.best_end is not None
    assert 0 <= found.best_start < found.best_end <= len(long)
    assert not found.truncated
    assert (short.best_start, short.best_end) == (None, None)
    alone = rankmill.load(str(tiny["bert"]), threads=1).rank("fox", [long[found.best_start : found.best_end]])
    assert found.logit == pytest.approx(alone[0].logit, abs=1e-4), "the span holds the tokens that were scored"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda r: r.rank(QUERY, "one text"), TypeError, "documents is a single str; give a list"),
        (lambda r: r.rank(QUERY, ["a", None]), TypeError, r"documents\[1\] is of type NoneType"),
        (lambda r: r.rank(None, ["a"]), TypeError, "The query is of type NoneType"),
        (lambda r: r.rank(QUERY, ["a"], top_k=0), ValueError, "top_k is 0; it must be at least 1"),
        (lambda r: r.score("text"), TypeError, "pairs is a single text"),
        (lambda r: r.score([("a", "b"), ("a",)]), TypeError, r"pairs\[1\] is .* two texts"),
        (lambda r: r.score(["ab"]), TypeError, r"pairs\[0\] is 'ab'"),
    ],
)
def test_mistakes_are_told_in_sentences(reranker: Reranker, call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(reranker)


def test_what_is_not_finite_is_named_in_the_whole_input(reranker: Reranker) -> None:
    class Broken:
        fingerprint, activation, listwise = "broken", "identity", False
        encode = staticmethod(reranker.scorer.encode)

        def logits(self, pairs: Any) -> Any:
            if len(pairs) == 3:
                return np.zeros(3, dtype=np.float32)
            raise NonFiniteScoreError("NaN.", [1])

    texts = ["a", "b", "c", "d", "e", "e"]
    with pytest.raises(NonFiniteScoreError, match="the first of them is pair 4") as caught:
        list(Reranker(Broken()).stream([("q", text) for text in texts], 3))
    assert caught.value.pairs == (4, 5)


def test_load_knows_every_option() -> None:
    parameters = inspect.signature(rankmill.load).parameters
    assert {field.name for field in fields(ScorerOptions)} == parameters.keys() - {"activation"}
    assert {name: parameters[name].default for name in parameters if name != "activation"} == {
        field.name: field.default for field in fields(ScorerOptions)
    }


def test_importing_the_package_loads_nothing() -> None:
    script = (
        "import sys, rankmill; assert rankmill.__version__; assert not hasattr(rankmill, 'rnak');"
        "print([name for name in ('torch', 'numpy', 'pydantic', 'tokenizers') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(LIBRARY)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert all(hasattr(rankmill, name) for name in rankmill.__all__)
