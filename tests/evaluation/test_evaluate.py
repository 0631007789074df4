"""Values agree with hand computation and with published figures; what is missing counts as documented."""

import math

import numpy as np
import pyarrow as pa
import pytest

from rankmill.errors import InputError, UsageError
from rankmill.evaluation.evaluate import Qrels, evaluate
from rankmill.evaluation.measures import parse_measures
from rankmill.evaluation.read import read_qrels, read_results
from tests.collections_dir import collections_or_skip


def run_of(rows: list[tuple[str, str, float]], ranks: list[int] | None = None) -> pa.Table:
    table = pa.table(
        {
            name: list(column)
            for name, column in zip(("query_id", "doc_id", "score"), zip(*rows, strict=True), strict=True)
        }
    )
    return table if ranks is None else table.append_column("rank", pa.array(ranks, pa.int32()))


def value(qrels: Qrels, run: pa.Table, measure: str) -> float:
    return float(evaluate(qrels, run, parse_measures(measure)).means[0])


@pytest.mark.parametrize(
    ("collection", "expected"),
    [("noveleval-2306", 0.7410), ("dbpedia-entity-40q", 0.4956), ("scifact", 0.6690)],
)
def test_reference_runs_have_their_published_figures(collection: str, expected: float) -> None:
    folder = collections_or_skip()
    qrels = read_qrels(str(folder / collection / "qrels.tsv.gz"))
    run = read_results(str(folder / "reference-runs" / f"{collection}.all-MiniLM-L6-v2-cos.trec.gz"))
    assert value(qrels, run, "nDCG@10") == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    ("collection", "run_name", "expected"),
    [
        ("noveleval-2306", "run.candidates20", 0.6503),
        ("dbpedia-entity-40q", "run.bm25s", 0.3702),
        ("scifact", "run.bm25s", 0.6769),
    ],
)
def test_first_stages_have_their_published_figures(collection: str, run_name: str, expected: float) -> None:
    folder = collections_or_skip() / collection
    run = read_results(str(folder / f"{run_name}.trec.gz"))
    assert value(read_qrels(str(folder / "qrels.tsv.gz")), run, "nDCG@10") == pytest.approx(expected, abs=5e-5)


def test_values_by_hand() -> None:
    qrels = {"q": {"a": 2, "b": 1, "c": 1}}
    run = run_of([("q", "x", 9.0), ("q", "b", 8.0), ("q", "a", 7.0), ("q", "y", 6.0)])
    ideal = 2 + 1 / math.log2(3) + 1 / math.log2(4)
    assert value(qrels, run, "nDCG@10") == pytest.approx((1 / math.log2(3) + 2 / math.log2(4)) / ideal)
    assert value(qrels, run, "RR@10") == 0.5
    assert value(qrels, run, "P@5") == pytest.approx(2 / 5)
    assert value(qrels, run, "R@100") == pytest.approx(2 / 3)
    assert value(qrels, run, "RR(rel=2)@10") == pytest.approx(1 / 3)


def test_a_judged_query_without_results_scores_zero_and_counts() -> None:
    qrels = {"q1": {"a": 1}, "q2": {"a": 1}}
    found = evaluate(qrels, run_of([("q1", "a", 1.0)]), parse_measures("nDCG@10 RR@10"))
    assert found.values.tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert found.means.tolist() == [0.5, 0.5]
    assert found.without_results == ("q2",)


def test_a_query_without_judgements_is_left_out_and_reported() -> None:
    run = run_of([("q1", "a", 1.0), ("extra", "a", 1.0)])
    found = evaluate({"q1": {"a": 1}}, run, parse_measures("nDCG@10"))
    assert found.means.tolist() == [1.0]
    assert found.without_judgements == ("extra",)


def test_integer_ids_meet_string_ids() -> None:
    run = pa.table({"query_id": [7], "doc_id": [11], "score": [1.0]})
    assert value({"7": {"11": 1}}, run, "RR@10") == 1.0


def test_the_order_of_rows_does_not_matter() -> None:
    rows = [("q", name, float(score)) for score, name in enumerate("abcdef")] + [("p", "a", 1.0)]
    qrels = {"q": {"b": 1}, "p": {"a": 1}}
    assert value(qrels, run_of(rows), "RR@10") == value(qrels, run_of(rows[::-1]), "RR@10")


def test_equal_scores_follow_the_rank_then_the_file() -> None:
    rows = [("q", "a", 1.0), ("q", "b", 1.0), ("q", "c", 1.0)]
    assert value({"q": {"b": 1}}, run_of(rows), "RR@10") == 0.5
    assert value({"q": {"b": 1}}, run_of(rows, ranks=[3, 1, 2]), "RR@10") == 1.0
    assert value({"q": {"z": 1, "a": 1}}, run_of(rows, ranks=[3, 1, 2]), "RR@10") == pytest.approx(1 / 3)


def test_float32_scores_and_strange_ids_do_not_confuse_the_tools() -> None:
    run = pa.table({"query_id": ["a b", "a b"], "doc_id": ["x\ty", "ü"], "score": pa.array([1.0, 2.0], pa.float32())})
    assert value({"a b": {"x\ty": 1}}, run, "RR@10") == 0.5


def test_a_repeated_document_counts_once_at_its_better_place() -> None:
    run = run_of([("q", "a", 0.1), ("q", "x", 1.0), ("q", "x", 0.9), ("q", "b", 0.5), ("q", "a", 0.8)])
    found = evaluate({"q": {"a": 1, "b": 1}}, run, parse_measures("RR@10 P@3"))
    assert found.values[:, 0].tolist() == pytest.approx([1 / 2, 2 / 3])
    assert found.repeated == 2


def test_what_cannot_be_evaluated_is_refused() -> None:
    run = run_of([("q", "a", 1.0)])
    measures = parse_measures("RR@10")
    with pytest.raises(InputError, match="no judgements"):
        evaluate({}, run, measures)
    with pytest.raises(InputError, match=r"no query in common.*'q'.*'1', '2', '3', … \(4\)"):
        evaluate({str(number): {"a": 1} for number in range(1, 5)}, run, measures)
    with pytest.raises(InputError, match="1 scores of the run are not finite"):
        evaluate({"q": {"a": 1}}, run_of([("q", "a", math.nan)]), measures)


def test_measures_are_parsed_once_and_in_order() -> None:
    names = [measure.name for measure in parse_measures("RR@10 nDCG@10  RR@10 P(rel=2)@5")]
    assert names == ["RR@10", "nDCG@10", "P(rel=2)@5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "No measure is named"),
        ("ndcg@10", "Did you mean nDCG@10"),
        ("xyzzy", "Known are AP"),
        ("P", "P must have cutoff"),
        ("R@0", "at least 1"),
        ("nDCG@ten", "lacks a parameter or has a wrong one"),
        ("foo! bar@", "'foo!'.*'bar@'"),
    ],
)
def test_bad_measures_are_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_measures(text)


def test_thousands_of_queries_at_once() -> None:
    queries, depth = 2_000, 20
    generator = np.random.default_rng(0)
    run = pa.table(
        {
            "query_id": np.repeat(np.arange(queries), depth),
            "doc_id": np.tile(np.arange(depth), queries),
            "score": generator.random(queries * depth),
        }
    )
    qrels = {str(query): {"3": 1} for query in range(queries)}
    found = evaluate(qrels, run, parse_measures("nDCG@10 RR@10 P@5 R@100"))
    assert found.means[3] == 1.0
    assert found.means[1] == pytest.approx(sum(1 / rank for rank in range(1, 11)) / depth, abs=0.02)
