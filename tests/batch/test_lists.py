"""Scorers of lists in jobs: a query's documents are scored together wherever its rows lie, whatever happens to them."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import rankmill
from rankmill.batch.freight import LIST
from rankmill.batch.lists import lists_together
from rankmill.cli.main import main
from rankmill.errors import UsageError
from tests.batch.conftest import Row, nested, write_parquet
from tests.batch.jobs import read_rankings, read_rejected, run_job, run_on_ray
from tests.list_scorer import list_scores
from tests.scoring.tiny_llms import save_tiny_lists

MODEL = "python:tests.list_scorer:Lists"
ONE_WORKER = {"workers": "1", "cpus_per_worker": 1}


def expected(rows: list[Row]) -> dict[tuple[str, int], float]:
    """Logit by query id and place among the query's rows."""
    lists: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        lists[row["query_id"]].append(row)
    return {
        (query_id, place): logit
        for query_id, some in lists.items()
        for place, logit in enumerate(list_scores(some[0]["query"], [row["text"] for row in some]))
    }


def scattered(queries: int = 7, documents: int = 9) -> list[Row]:
    """Rows of all queries in turn; every third document is there twice, and two queries have the same text."""
    return [
        {
            "query_id": f"q{query}",
            "query": f"query {query // 2}",
            "doc_id": f"q{query}-{document}",
            "text": f"text {document - document % 3 // 2} of {query % 3}",
        }
        for document in range(documents)
        for query in range(queries)
    ]


def by_place(rankings: list[Row]) -> dict[tuple[str, int], float]:
    return {(row["query_id"], int(row["doc_id"].split("-")[1])): row["logit"] for row in rankings}


def check(output: Path, rows: list[Row]) -> None:
    wanted, found = expected(rows), by_place(read_rankings(output))
    assert found.keys() == wanted.keys()
    np.testing.assert_allclose([found[key] for key in wanted], list(wanted.values()), rtol=1e-6)


def test_lists_are_brought_together() -> None:
    table = pa.table(
        {
            "query_id": ["b", "a", "b", None, "a", "b", "a"],
            "query": ["x", "x", "x", "x", "x", "other", "x"],
            "document": list("1234567"),
            "reason": [None, None, None, "null_query_id", None, None, None],
        }
    )
    found = lists_together(table)
    assert found.column("document").to_pylist() == ["1", "3", "2", "5", "7", "4", "6"]
    assert found.column(LIST).to_pylist() == [0, 0, 1, 1, 1, 2, 3]
    assert found.column("position").to_pylist() == [0, 2, 1, 4, 6, 3, 5]
    assert lists_together(table.slice(0, 0)).column_names == found.column_names


def test_rows_in_turn_and_copies(tmp_path: Path) -> None:
    rows = scattered()
    source = write_parquet(tmp_path / "in" / "a.parquet", rows, row_group_size=10)
    run_job(source, tmp_path / "out", MODEL)
    check(tmp_path / "out", rows)


@pytest.mark.usefixtures("local_ray")
def test_on_ray_a_list_is_scored_whole_or_rejected_whole(tmp_path: Path) -> None:
    rows = scattered()
    rows[7 * 4 + 2]["text"] += " NAN"  # of q2
    rows[7 * 6 + 5]["text"] += " EXIT"  # of q5
    write_parquet(tmp_path / "in" / "a.parquet", rows[:30], row_group_size=10)
    write_parquet(tmp_path / "in" / "b.parquet", rows[30:], row_group_size=10)
    run_on_ray(tmp_path / "in", tmp_path / "out", MODEL, shard_pairs=40, max_rejected="18", **ONE_WORKER)
    check(tmp_path / "out", [row for row in rows if row["query_id"] not in {"q2", "q5"}])
    rejected = read_rejected(tmp_path / "out").to_pylist()
    assert {(row["query_id"], row["reason"]) for row in rejected} == {
        ("q2", "non_finite_score"),
        ("q5", "worker_crash"),
    }
    assert len(rejected) == 18
    details = {row["doc_id"]: row["detail"] for row in rejected}
    assert details["q2-4"] == "the model's logit is NaN or infinite"
    assert details["q2-3"] == "another document of its list; a list is scored whole or not at all"
    assert details["q5-0"].endswith("(a list of 9 documents, scored together)")


def test_a_query_id_with_two_texts_is_two_lists_and_one_ranking(tmp_path: Path) -> None:
    texts = [("A", "one"), ("B", "two"), ("A", "three"), ("A", "one")]
    rows = [
        {"query_id": "q", "query": query, "doc_id": f"q-{place}", "text": text}
        for place, (query, text) in enumerate(texts)
    ]
    run_job(write_parquet(tmp_path / "in" / "a.parquet", rows), tmp_path / "out", MODEL)
    found = by_place(read_rankings(tmp_path / "out"))
    first, second = list_scores("A", ["one", "three", "one"]), list_scores("B", ["two"])
    np.testing.assert_allclose(
        [found["q", place] for place in range(4)], [first[0], second[0], first[1], first[2]], rtol=1e-6
    )


def test_equal_logits_stay_in_the_order_of_the_input(tmp_path: Path) -> None:
    rows = [
        {"query_id": "q", "query": query, "doc_id": f"d{place}", "text": "same length"}
        for place, query in enumerate(["A", "B", "A", "B"])
    ]
    model = "python:tests.list_scorer:by_length"
    run_job(write_parquet(tmp_path / "in" / "a.parquet", rows), tmp_path / "out", model, top_k=3)
    assert [row["doc_id"] for row in read_rankings(tmp_path / "out")] == ["d0", "d1", "d2"]


def test_nested_rows(tmp_path: Path) -> None:
    rows = scattered()
    source = write_parquet(tmp_path / "in" / "a.parquet", nested(rows))
    run_job(source, tmp_path / "out", MODEL)
    check(tmp_path / "out", rows)


@pytest.mark.usefixtures("local_ray")
def test_a_list_that_was_rejected_is_tried_again_whole(tmp_path: Path) -> None:
    rows = scattered()
    bad = [{**row, "text": row["text"] + " NAN" if row["doc_id"] == "q2-4" else row["text"]} for row in rows]
    source = write_parquet(tmp_path / "in" / "a.parquet", bad)
    run_job(source, tmp_path / "out", MODEL, max_rejected="9")
    assert len(read_rejected(tmp_path / "out")) == 9
    again = ["retry-rejected", str(tmp_path / "out"), "--output", str(tmp_path / "again"), "--max-rejected", "9"]
    assert main([*again, "--workers", "1", "--cpus-per-worker", "1"]) in {0, 5}
    retried = read_rejected(tmp_path / "again").to_pylist()
    assert sorted(row["doc_id"] for row in retried) == [f"q2-{n}" for n in range(9)]


def test_a_model_that_reads_lists_as_tokens(tmp_path: Path) -> None:
    model = save_tiny_lists(tmp_path / "model")
    rows = scattered(documents=5)
    source = write_parquet(tmp_path / "in" / "a.parquet", rows, row_group_size=10)
    run_job(source, tmp_path / "out", model, precision="float32")
    found = by_place(read_rankings(tmp_path / "out"))
    reranker = rankmill.load(str(model), precision="float32")
    for query in range(7):
        mine = [row for row in rows if row["query_id"] == f"q{query}"]
        wanted = reranker.score([(row["query"], row["text"]) for row in mine])
        np.testing.assert_allclose([found[f"q{query}", place] for place in range(5)], wanted, atol=2e-6)


def test_a_row_that_cannot_be_read_is_not_in_its_list(tmp_path: Path) -> None:
    rows = [{**row, "text": None if row["doc_id"] == "q1-0" else row["text"]} for row in scattered()]
    source = write_parquet(tmp_path / "in" / "a.parquet", rows)
    run_job(source, tmp_path / "out", MODEL, max_rejected="1")
    wanted = {
        (query_id, place + (query_id == "q1")): logit
        for (query_id, place), logit in expected([row for row in rows if row["text"] is not None]).items()
    }
    found = by_place(read_rankings(tmp_path / "out"))
    assert found.keys() == wanted.keys()
    np.testing.assert_allclose([found[key] for key in wanted], list(wanted.values()), rtol=1e-6)


@pytest.mark.parametrize("flag", ["keep_scores", "reuse"])
def test_scores_of_pairs_are_not_kept(tmp_path: Path, flag: str) -> None:
    source = write_parquet(tmp_path / "in" / "a.parquet", scattered())
    value = True if flag == "keep_scores" else str(tmp_path / "before")
    with pytest.raises(UsageError, match=f"--{flag.replace('_', '-')} keeps the score of each pair .* scores lists"):
        run_job(source, tmp_path / "out", MODEL, **{flag: value})
