"""Measuring: figures by hand, and the same ones from `rankmill evaluate`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from rankmill.errors import InputError
from rankmill.evaluation.command import measure as evaluate_files
from rankmill.evaluation.compare import Comparison
from rankmill.scoring.load import load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.settings.evaluate import EvaluateSettings
from rankmill.settings.train import MeasureSettings
from rankmill.tables.trec import read_run, write_run
from rankmill.training.collections import read_documents, read_queries
from rankmill.training.lists import Candidate, TrainingList
from rankmill.training.measure import best, measure, measure_collection, measure_lists, mix
from rankmill.types import EncodedPairs
from tests.list_scorer import asked

# The run is in document order: "wind" is fifth, "snow" sixth, "moon" third.
BEFORE = (0.3869 + 0.3562 + 0.5) / 3


class ByLength:
    """A scorer that prefers long documents, or none at all: `weight` times the characters."""

    fingerprint = "by length"
    activation = "identity"
    listwise = False

    def __init__(self, weight: float) -> None:
        self._weight = weight

    def encode(self, queries: Sequence[str], texts: Sequence[str]) -> EncodedPairs:
        offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
        none = np.zeros(len(queries), dtype=np.int32)
        return EncodedPairs(np.zeros(int(offsets[-1]), dtype=np.int32), offsets, none, none.astype(np.bool_))

    def logits(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        return (pairs.lengths * self._weight).astype(np.float32)


def test_the_shipped_model_is_measured_through_the_scorer(collection: Path) -> None:
    gain = measure(MeasureSettings(collections=[collection], threads=1))[0]
    assert (gain.name, gain.queries, gain.pairs) == ("tiny", 3, 18)
    assert gain.before == pytest.approx(BEFORE, abs=1e-3)
    assert gain.after > 0.9  # any reranker finds a single word
    assert gain.low <= gain.after - gain.before <= gain.high


def test_the_figures_are_those_of_rankmill_evaluate(collection: Path, tmp_path: Path) -> None:
    scorer = load_scorer(ScorerOptions(threads=1))
    gain = measure_collection(scorer, collection)
    run = read_run(str(collection / "run.test.trec"))
    queries, texts = (
        read_queries(collection),
        {document.doc_id: document.text for document in read_documents(collection)},
    )
    pairs = scorer.encode(
        [queries[q] for q in run["query_id"].to_pylist()], [texts[d] for d in run["doc_id"].to_pylist()]
    )
    reranked = run.drop_columns("score").append_column("score", pa.array(scorer.logits(pairs)))
    write_run(str(tmp_path / "reranked.trec"), reranked, tag="reranked")
    found = evaluate_files(
        EvaluateSettings(
            qrels=str(collection / "qrels.tsv"),
            run=str(tmp_path / "reranked.trec"),
            baseline=str(collection / "run.test.trec"),
            measures="nDCG@10",
        )
    )
    assert isinstance(found, Comparison)
    row = found.differences[0]
    assert (gain.before, gain.after, gain.low, gain.high) == (row.baseline, row.run, row.low, row.high)


def test_equal_logits_leave_the_order_of_the_first_stage(collection: Path) -> None:
    gain = measure_collection(ByLength(0.0), collection)
    assert gain.after == gain.before == gain.mixed
    assert (gain.low, gain.high) == (0.0, 0.0)


def test_a_judged_query_without_results_counts_as_zero(collection: Path) -> None:
    run = collection / "run.test.trec"
    run.write_text("".join(f"{line}\n" for line in run.read_text().splitlines() if not line.startswith("qmoon")))
    gain = measure_collection(ByLength(0.0), collection)
    assert (gain.queries, gain.pairs) == (3, 12)
    assert gain.before == pytest.approx((0.3869 + 0.3562) / 3, abs=1e-3)


def test_a_run_of_another_collection_is_refused(collection: Path) -> None:
    with (collection / "run.test.trec").open("a") as stream:
        stream.write("\nqmoon Q0 stranger 7 -7 test\n")
    with pytest.raises(InputError, match=r"1 documents of its run have no text in it(.|\n)*stranger"):
        measure_collection(ByLength(0.0), collection)


def test_the_best_of_each_query_follow_scores_then_ranks() -> None:
    rows = [("a", "w", 4, 0.1), ("b", "x", 1, 0.5), ("a", "x", 2, 0.7), ("a", "y", 1, 0.7), ("c", "x", 1, 0.9)]
    run = pa.table(dict(zip(("query_id", "doc_id", "rank", "score"), map(list, zip(*rows, strict=True)), strict=True)))
    found = best(run, ["b", "a", "unknown"], 2)
    assert list(zip(found["query_id"].to_pylist(), found["doc_id"].to_pylist(), strict=True)) == [
        ("a", "y"),
        ("a", "x"),
        ("b", "x"),
    ]


def test_held_out_lists_are_told_apart_by_place_and_not_by_id() -> None:
    lists = [
        TrainingList("same", "q", (Candidate("d", "short", 0.0), Candidate("d", "the long one", 1.0))),
        TrainingList("same", "q", (Candidate("d", "the long one", 1.0), Candidate("e", "short"))),
    ]
    gain = measure_lists(ByLength(1.0), lists)
    assert (gain.queries, gain.pairs, gain.after) == (2, 4, 1.0)
    assert gain.before == pytest.approx((1 / np.log2(3) + 1) / 2)


def test_mixing_adds_z_scores_of_each_query_and_ignores_constant_ones() -> None:
    ids = np.array(["1", "1", "1", "2", "2"], dtype=object)
    first, second = np.array([10.0, 0.0, 5.0, 7.0, 9.0]), np.array([0.1, 0.0, 0.2, 3.0, 3.0])
    mixed = mix(ids, first, second)
    assert mixed[:3] == pytest.approx([1.2247, -2.4495, 1.2247], abs=1e-4)
    assert mixed[3:].tolist() == [-1.0, 1.0]


def test_a_scorer_of_lists_gets_a_query_at_a_time() -> None:
    asked.clear()
    lists = [
        TrainingList("same", "q", tuple(Candidate(str(n), f"text {n}", float(n == 0)) for n in range(size)))
        for size in (2500, 3)
    ]
    measure_lists(load_scorer(ScorerOptions(model="python:tests.list_scorer:Lists")), lists)
    assert [len(documents) for _, documents in asked] == [2500, 3]
