"""Scorers of lists: a query's documents are scored together, however they arrive, and nothing else with them."""

import io
import json
from collections.abc import Iterator

import numpy as np
import pytest

import rankmill
from rankmill.bench.serve.asks import Ask
from rankmill.bench.serve.sides import Bare
from rankmill.bench.subject import score_all
from rankmill.cli.main import main
from rankmill.errors import ModelError, NonFiniteScoreError, UsageError
from rankmill.scoring.lists import each_list, in_lists, list_edges
from rankmill.scoring.load import check_model, load_encoder, load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.overlap import slices
from rankmill.scoring.self_test import self_test
from tests.list_scorer import asked, by_length, list_scores

LISTS = "python:tests.list_scorer:Lists"
PAIRS = [("a", "one"), ("a", "two"), ("b", "one"), ("a", "two"), ("a", "two"), ("a", "")]
"""Three lists: the second `a` comes after something else, and holds a document twice."""
EXPECTED = [*list_scores("a", ["one", "two"]), *list_scores("b", ["one"]), *list_scores("a", ["two", "two", ""])]


@pytest.fixture(autouse=True)
def nothing_asked() -> Iterator[None]:
    asked.clear()
    yield
    asked.clear()


def options(name: str) -> ScorerOptions:
    return ScorerOptions(model=f"python:tests.list_scorer:{name}")


def test_neighbours_with_one_query_are_a_list() -> None:
    queries = [query for query, _ in PAIRS]
    pairs = in_lists(load_encoder(options("Lists")).encode(queries, queries), queries)
    assert pairs.lists is not None
    assert pairs.lists.tolist() == [0, 0, 1, 2, 2, 2]
    assert pairs.lists.dtype == np.int32
    assert each_list(pairs) == [slice(0, 2), slice(2, 3), slice(3, 6)]
    assert list_edges(pairs.lists).tolist() == [0, 2, 3, 6]
    assert list_edges(pairs.lists[:0]).tolist() == [0]


def test_a_list_is_one_call_with_the_query_and_its_documents_in_order() -> None:
    scorer = load_scorer(options("Lists"))
    pairs = scorer.encode(*zip(*PAIRS, strict=True))
    np.testing.assert_allclose(scorer.logits(pairs), EXPECTED, rtol=1e-6)
    assert asked == [("a", ("one", "two")), ("b", ("one",)), ("a", ("two", "two", ""))]
    assert scorer.logits(scorer.encode([], [])).shape == (0,)
    assert len(asked) == 3


def test_a_function() -> None:
    scorer = load_scorer(options("by_length"))
    logits = scorer.logits(scorer.encode(["q", "q", "other"], ["long", "x", "alone"]))
    np.testing.assert_allclose(logits, [*by_length("q", ["long", "x"]), *by_length("other", ["alone"])], rtol=1e-6)


def test_its_card_says_so() -> None:
    card = check_model(options("Lists"))
    assert card.listwise
    assert card.input_format == "query and all its documents as texts"
    assert not check_model(ScorerOptions(model="python:tests.batch.counting_scorer:score")).listwise


def test_positions_of_scores_that_are_not_finite_are_those_of_the_pairs() -> None:
    scorer = load_scorer(options("Lists"))
    with pytest.raises(NonFiniteScoreError, match=r"2 of 5 pairs \(positions 1, 4\)") as caught:
        scorer.logits(scorer.encode(["a", "a", "b", "c", "c"], ["one", "NAN", "two", "three", "NAN too"]))
    assert caught.value.pairs == (1, 4)


def test_something_else_than_a_number_per_document() -> None:
    scorer = load_scorer(options("too_many"))
    with pytest.raises(ModelError, match="returned 3 scores for 2 pairs"):
        scorer.logits(scorer.encode(["a", "a", "b"], ["x", "y", "z"]))


def test_pairs_without_lists_are_our_mistake() -> None:
    scorer, encoder = load_scorer(options("Lists")), load_encoder(options("Lists"))
    with pytest.raises(ValueError, match="This is a bug"):
        scorer.logits(encoder.encode(["a"], ["b"]))


def test_it_says_yes_or_no() -> None:
    with pytest.raises(ModelError, match=r"attribute listwise of .*undecided' is a str; it must be True or False"):
        check_model(options("undecided"))


def test_slices_end_where_lists_do() -> None:
    lists = [[("a", str(i)) for i in range(7)], [("b", "x")], [("c", str(i)) for i in range(2)]]
    pairs = [pair for one in lists for pair in one]
    assert list(slices(pairs, 3, listwise=True)) == [lists[0], lists[1] + lists[2]]
    assert list(slices(pairs, 100, 3, listwise=True)) == [lists[0], lists[1] + lists[2]]
    assert list(slices(pairs, 8, listwise=True)) == [lists[0] + lists[1], lists[2]]


def test_a_stream_is_cut_between_lists_and_copies_stay() -> None:
    reranker = rankmill.load(LISTS)
    found = np.concatenate([part.logits for part in reranker.stream(PAIRS, slice_pairs=1)])
    np.testing.assert_allclose(found, EXPECTED, rtol=1e-6)
    np.testing.assert_allclose(reranker.score(PAIRS), EXPECTED, rtol=1e-6)


def test_a_ranking_of_more_documents_than_a_slice() -> None:
    documents = [f"document {n}" for n in range(5000)]
    ranked = rankmill.load(LISTS).rank("q", documents)
    expected = list_scores("q", documents)
    assert [one.index for one in ranked] == sorted(range(5000), key=lambda n: -np.float32(expected[n]))
    assert len(asked) == 1


def test_the_self_test_compares_lists() -> None:
    checks = {check.name: check for check in self_test(load_scorer(options("Lists")), check_model(options("Lists")))}
    assert checks["batches"].outcome == "passed"
    assert "3 lists, alone and together" in checks["batches"].detail
    bad = {check.name: check for check in self_test(load_scorer(options("forgetful")), check_model(options("Lists")))}
    assert bad["batches"].outcome == "failed"


def test_queries_with_one_text_and_two_ids_are_two_lists(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [("1", "one"), ("1", "two"), ("2", "three"), ("2", "one")]
    lines = "".join(json.dumps({"query_id": key, "query": "q", "text": text}) + "\n" for key, text in rows)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    assert main(["score", "--model", LISTS, "--json"]) == 0
    found = {row["index"]: row["logit"] for row in map(json.loads, capsys.readouterr().out.splitlines())}
    expected = [*list_scores("q", ["one", "two"]), *list_scores("q", ["three", "one"])]
    np.testing.assert_allclose([found[n] for n in range(4)], expected, rtol=1e-6)


def test_a_bad_document_is_named_in_the_whole_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [("1", "one"), ("1", "two"), ("2", "three"), ("2", "NAN")]
    lines = "".join(json.dumps({"query_id": key, "query": "q", "text": text}) + "\n" for key, text in rows)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    assert main(["score", "--model", LISTS, "--json"]) != 0
    assert "In the whole input, the first of them is pair 3." in capsys.readouterr().err


def test_the_bare_scorer_of_bench_keeps_lists_whole() -> None:
    queries, texts = ["a"] * 5000 + ["b"], [str(n) for n in range(5001)]
    found = score_all(load_scorer(options("Lists")), queries, texts)
    np.testing.assert_allclose(found, [*list_scores("a", texts[:-1]), *list_scores("b", texts[-1:])], rtol=1e-6)
    asked.clear()
    asks = [Ask("a", ("one", "two")), Ask("a", ("three",))]
    Bare(load_scorer(options("Lists"))).all(asks)
    assert asked == [("a", ("one", "two")), ("a", ("three",))]


@pytest.mark.parametrize("model", ["builtin", LISTS, "python:tests.batch.counting_scorer:score"])
def test_the_flag_is_for_endpoints(model: str) -> None:
    with pytest.raises(UsageError, match=r"--listwise was given with --model .*; it is for http"):
        check_model(ScorerOptions(model=model, listwise=True))
