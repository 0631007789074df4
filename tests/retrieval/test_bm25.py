"""BM25 is what its formula says, in a defined order, over tokens that a person's words can hit."""

import math

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankmill.retrieval.bm25 import CANDIDATES, K1, B, retrieve, tokens

WORDS = st.sampled_from(["apple", "bread", "cheese", "dough", "egg"])
TEXTS = st.lists(WORDS, max_size=8).map(" ".join)


def documents_of(texts: list[str]) -> pa.Table:
    names = [f"d{number}" for number in range(len(texts))]
    return pa.table({"doc_id": names, "title": pa.array([""] * len(texts), pa.string()), "text": texts})


def queries_of(*texts: str) -> pa.Table:
    return pa.table({"query_id": [f"q{number}" for number in range(len(texts))], "query": list(texts)})


def brute_force(query: str, texts: list[str]) -> list[tuple[str, float]]:
    """BM25 from its definition, one number at a time; best first, equal scores in the order of the texts."""
    split = [text.split() for text in texts]
    mean_length = sum(map(len, split)) / len(split)
    scored = []
    for number, document in enumerate(split):
        score = 0.0
        for token in query.split():
            holding = sum(token in other for other in split)
            idf = math.log(1 + (len(split) - holding + 0.5) / (holding + 0.5))
            frequency = document.count(token)
            if frequency:
                score += idf * frequency / (frequency + K1 * (1 - B + B * len(document) / mean_length))
        if score > 0:
            scored.append((f"d{number}", score))
    return sorted(scored, key=lambda pair: -round(pair[1], 6))


@settings(max_examples=60, deadline=None)
@given(query=TEXTS, texts=st.lists(TEXTS, min_size=1, max_size=7), k=st.integers(1, 9))
def test_agrees_with_the_formula(query: str, texts: list[str], k: int) -> None:
    found = retrieve(queries_of(query), documents_of(texts), k)
    expected = brute_force(query, texts)[:k]
    assert found["retrieval_score"].to_pylist() == pytest.approx([score for _, score in expected], rel=1e-5)
    # bm25s adds in float32: documents whose scores agree to 1e-5 may stand in either order at the cut.
    expected_scores = dict(brute_force(query, texts))
    for doc_id, score in zip(found["doc_id"].to_pylist(), found["retrieval_score"].to_pylist(), strict=True):
        assert expected_scores[doc_id] == pytest.approx(score, rel=1e-5)


def test_rows_of_a_query_are_together_and_best_first() -> None:
    documents = documents_of(["red fish", "blue fish", "red fish red", "old shoe"])
    found = retrieve(queries_of("shoe", "red fish", "xyzzy"), documents, 10)
    assert found.schema.equals(CANDIDATES)
    assert found["query_id"].to_pylist() == ["q0", "q1", "q1", "q1"]
    assert found["query"].to_pylist()[1] == "red fish"
    assert found["doc_id"].to_pylist()[0] == "d3"
    scores = found["retrieval_score"].to_pylist()[1:]
    assert scores == sorted(scores, reverse=True)


def test_equal_scores_keep_the_order_of_the_corpus() -> None:
    found = retrieve(queries_of("fish"), documents_of(["a fish", "the fish", "fish", "bird", "fish a"]), 3)
    assert found["doc_id"].to_pylist() == ["d0", "d1", "d2"]


def test_fewer_than_k_where_fewer_match() -> None:
    assert retrieve(queries_of("bird"), documents_of(["fish", "bird"]), 100).num_rows == 1
    assert retrieve(queries_of("the"), documents_of(["the fish"]), 100).num_rows == 0
    assert retrieve(queries_of("fish"), documents_of(["", "the"]), 100).num_rows == 0
    assert retrieve(queries_of("fish"), documents_of(["bird"]).slice(0, 0), 5).num_rows == 0
    assert retrieve(queries_of(), documents_of(["bird"]), 5).schema.equals(CANDIDATES)


def test_title_is_searched_too() -> None:
    documents = pa.table({"doc_id": ["a", "b"], "title": ["shutil.rmtree", None], "text": ["x", None]})
    assert retrieve(queries_of("rmtree"), documents, 5)["doc_id"].to_pylist() == ["a"]


def test_k_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="k is 0"):
        retrieve(queries_of("x"), documents_of(["x"]), 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How do I remove the folders?", ["remove", "folders"]),
        ("os.get_exec_path", ["os", "get_exec_path", "get", "exec", "path"]),
        ("json.JSONDecoder", ["json", "jsondecoder", "json", "decoder"]),
        ("HTTPServer2", ["httpserver2", "http", "server2"]),
        ("naïve Über-Straße 日本語", ["naïve", "über", "straße", "日本語"]),
        ("", []),
    ],
)
def test_tokens(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected
