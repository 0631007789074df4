"""Rows that cannot be scored are an output: kept with where they came from and why, counted, never in the way."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from rankmill.batch.allowance import allowed_rejects
from rankmill.batch.freight import EncodedShard
from rankmill.batch.stages import score_shard
from rankmill.errors import NonFiniteScoreError, TooManyRejectedError
from rankmill.types import EncodedPairs
from tests.batch.conftest import write_jsonl, write_parquet
from tests.batch.jobs import read_rankings, read_rejected, run_job

GOOD = {"query_id": "q", "query": "fox", "doc_id": "good", "text": "dog"}


def reasons(output: Path) -> list[tuple[int, str | None, str | None, str]]:
    columns = read_rejected(output).select(["row", "query_id", "doc_id", "reason"]).to_pydict()
    return list(zip(*columns.values(), strict=True))


def test_nulls_in_parquet(tmp_path: Path, model: Path) -> None:
    """F14."""
    rows = [GOOD] + [{**GOOD, "doc_id": f"no {name}", name: None} for name in ("query_id", "query", "text", "doc_id")]
    source = write_parquet(tmp_path / "in.parquet", rows)
    summary = run_job(source, tmp_path / "out", model, max_rejected=4)
    assert reasons(tmp_path / "out") == [
        (1, None, "no query_id", "null_query_id"),
        (2, "q", "no query", "null_query"),
        (3, "q", "no text", "null_text"),
        (4, "q", None, "null_doc_id"),
    ]
    rejected = read_rejected(tmp_path / "out")
    assert set(rejected.column("source").to_pylist()) == {str(source)}
    assert rejected.column_names == ["source", "row", "query_id", "doc_id", "reason", "detail"]
    assert rejected.column("detail").to_pylist()[2] == "the document text is null"
    assert [row["doc_id"] for row in read_rankings(tmp_path / "out")] == ["good"]
    assert (summary.totals.pairs_in, summary.totals.scored, summary.totals.rejected) == (5, 1, 4)
    success = json.loads((tmp_path / "out" / "_SUCCESS").read_text())
    assert (success["pairs_in"], success["rejected"], success["rows_out"]) == (5, 4, 1)


def test_odd_texts_are_scored(tmp_path: Path, model: Path) -> None:
    """Empty strings, NUL, right-to-left marks and five megabytes are text; only null is none."""
    texts = ["", " ", "a\0b", "\u202eabc", "x" * 5_000_000, "word " * 1_000_000]
    rows = [{**GOOD, "doc_id": str(n), "text": text} for n, text in enumerate(texts)]
    rows.append({**GOOD, "query_id": "empty", "query": ""})
    summary = run_job(write_parquet(tmp_path / "in.parquet", rows), tmp_path / "out", model)
    assert (summary.totals.scored, summary.totals.rejected) == (len(texts) + 1, 0)
    found = {row["doc_id"]: row["truncated"] for row in read_rankings(tmp_path / "out")}
    assert (found["5"], found["0"], found["2"]) == (True, False, False)


def test_duplicate_pairs_are_kept_and_counted(tmp_path: Path, model: Path) -> None:
    rows = [GOOD, {**GOOD, "text": "other"}, {**GOOD, "doc_id": "d2"}]
    summary = run_job(write_parquet(tmp_path / "in.parquet", rows), tmp_path / "out", model)
    assert (summary.totals.duplicates, summary.totals.rows_out) == (1, 3)
    assert "1 pair with a (query_id, doc_id) that came before" in summary.text()


def test_queries_with_several_texts_are_counted_and_the_first_is_named(tmp_path: Path, model: Path) -> None:
    texts = {"a": ["cat"] * 3, "b": ["fox", "dog", "fox"], "c": ["fox"], "d": ["cat", "cat", "dog"]}
    rows = [
        {**GOOD, "query_id": query_id, "query": query, "doc_id": str(number)}
        for query_id, queries in texts.items()
        for number, query in enumerate(queries)
    ]
    summary = run_job(write_parquet(tmp_path / "in.parquet", rows), tmp_path / "out", model, shard_pairs=3)
    assert summary.totals.shards > 1
    assert (summary.totals.unlike_queries, summary.totals.first_unlike_query) == (2, "b")
    assert "2 query_ids with more than one query text, the first b" in summary.text()
    again = run_job(tmp_path / "in.parquet", tmp_path / "out", model, shard_pairs=3)
    assert (again.already_complete, again.totals) == (True, summary.totals)


def test_lines_of_jsonl(tmp_path: Path, model: Path) -> None:
    lines = [
        json.dumps({**GOOD, "n": 1}),
        '{"query_id": "q", "query": "fox", "doc_id": "surrogate", "text": "\\ud800"}',
        "{not json",
        '["a list"]',
        json.dumps({**GOOD, "doc_id": "typed", "text": 5}),
        json.dumps({**GOOD, "doc_id": 7}),
        json.dumps({"query_id": "q", "doc_id": "no query", "text": "dog"}),
        json.dumps({**GOOD, "doc_id": "NUL", "text": "a\0b"}),
        json.dumps({**GOOD, "doc_id": "last"}, ensure_ascii=False),
    ]
    (tmp_path / "in.jsonl").write_text("\n\n".join(lines))
    summary = run_job(tmp_path / "in.jsonl", tmp_path / "out", model, max_rejected="100%")
    assert [(row, reason) for row, _, _, reason in reasons(tmp_path / "out")] == [
        (1, "invalid_unicode"),
        (2, "invalid_json"),
        (3, "invalid_json"),
        (4, "wrong_type"),
        (5, "wrong_type"),
        (6, "null_query"),
    ]
    assert read_rejected(tmp_path / "out").column("detail").to_pylist()[3] == "text is int, not string"
    assert {row["doc_id"] for row in read_rankings(tmp_path / "out")} == {"good", "NUL", "last"}
    assert summary.totals.pairs_in == 9


def test_invalid_utf8_in_a_string_column_of_parquet(tmp_path: Path, model: Path) -> None:
    buffers = pa.array([b"dog", b"\xff\xfe", b"cat"], pa.binary()).buffers()
    table = pa.table({"query_id": ["q"] * 3, "query": ["fox"] * 3, "doc_id": ["a", "b", "c"]})
    table = table.append_column("text", pa.StringArray.from_buffers(3, *buffers[1:], buffers[0]))
    pq.write_table(table, tmp_path / "in.parquet")
    run_job(tmp_path / "in.parquet", tmp_path / "out", model, max_rejected=1)
    assert reasons(tmp_path / "out") == [(1, "q", "b", "invalid_unicode")]
    assert {row["doc_id"] for row in read_rankings(tmp_path / "out")} == {"a", "c"}


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_nested_rows(form: str, tmp_path: Path, model: Path) -> None:
    good = {"doc_id": "good", "text": "dog"}
    rows: list[dict[str, Any]] = [
        {"query_id": "q0", "query": "fox", "candidates": [good, {"doc_id": "d1", "text": None}, None]},
        {"query_id": "q1", "query": "fox", "candidates": None},
        {"query_id": "q2", "query": "fox", "candidates": []},
        {"query_id": "q3", "query": None, "candidates": [good]},
        {"query_id": "q4", "query": "fox", "candidates": [good]},
    ]
    write = write_parquet if form == "parquet" else write_jsonl
    summary = run_job(write(tmp_path / f"in.{form}", rows), tmp_path / "out", model, max_rejected=5)
    assert reasons(tmp_path / "out") == [
        (0, "q0", "d1", "null_text"),
        (0, "q0", None, "null_doc_id"),
        (1, "q1", None, "no_candidates"),
        (2, "q2", None, "no_candidates"),
        (3, "q3", "good", "null_query"),
    ]
    assert [(row["query_id"], row["doc_id"]) for row in read_rankings(tmp_path / "out")] == [
        ("q0", "good"),
        ("q4", "good"),
    ]
    assert summary.totals.pairs_in == 7


def test_a_bad_value_in_nested_jsonl_rejects_no_more_than_it_must(tmp_path: Path, model: Path) -> None:
    a, b = {"doc_id": "a", "text": "cat"}, {"doc_id": "b", "text": "dog"}
    rows: list[Any] = [
        {"query_id": "q0", "query": "fox", "candidates": [{**a, "text": "\ud800"}, b]},
        {"query_id": "q1", "query": 7, "candidates": [a, b]},
        {"query_id": "q2", "query": "fox", "candidates": [{**a, "doc_id": 5}, "b", b]},
        {"query_id": "q3", "query": "fox", "candidates": "none"},
        "no object",
        {"query_id": "q4\ud800", "query": "fox", "candidates": [a]},
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run_job(tmp_path / "in.jsonl", tmp_path / "out", model, max_rejected="100%")
    assert reasons(tmp_path / "out") == [
        (0, "q0", "a", "invalid_unicode"),
        (1, "q1", "a", "wrong_type"),
        (1, "q1", "b", "wrong_type"),
        (2, "q2", None, "wrong_type"),
        (2, "q2", None, "wrong_type"),
        (3, "q3", None, "wrong_type"),
        (4, None, None, "invalid_json"),
        (5, None, "a", "invalid_unicode"),
    ]
    assert read_rejected(tmp_path / "out").column("detail").to_pylist()[1:6] == [
        *["query is int, not string"] * 2,
        "doc_id is int, not string",
        "a candidate is str, not an object",
        "candidates is str, not a list",
    ]
    assert [(row["query_id"], row["doc_id"]) for row in read_rankings(tmp_path / "out")] == [("q0", "b"), ("q2", "b")]


@pytest.mark.parametrize("lists", [[[], None], [[], []]])
@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_a_query_without_candidates_in_two_places(form: str, lists: list[Any], tmp_path: Path, model: Path) -> None:
    good = [{"doc_id": "good", "text": "dog"}]
    rows: list[Any] = [
        {"query_id": query_id, "query": "fox", "candidates": candidates}
        for query_id, candidates in (("q0", lists[0]), ("q1", good), ("q0", lists[1]))
    ]
    write = write_parquet if form == "parquet" else write_jsonl
    summary = run_job(write(tmp_path / f"in.{form}", rows), tmp_path / "out", model, max_rejected=2)
    assert reasons(tmp_path / "out") == [(0, "q0", None, "no_candidates"), (2, "q0", None, "no_candidates")]
    assert (summary.totals.pairs_in, summary.totals.scored) == (3, 1)


def test_numbers_in_jsonl_are_not_cast(tmp_path: Path, model: Path) -> None:
    """A fraction after the sampled lines is no id of another query, and no other number of a kept column."""
    row = {**GOOD, "query_id": 0, "n": 1, "weight": 0.5}
    rows: list[dict[str, Any]] = [{**row, "query_id": 1 + n // 100} for n in range(1000)]
    rows += [{**row, "query_id": odd} for odd in (3.5, 7.0, True, "7", 2**64 - 1, 2**64)]
    rows += [{**row, "query_id": 99, "doc_id": "kept", "n": n, "weight": 2} for n in (2.9, True, 5)]
    write_jsonl(tmp_path / "in.jsonl", rows)
    summary = run_job(
        tmp_path / "in.jsonl", tmp_path / "out", model, max_rejected="100%", shard_pairs=300, keep="n,weight"
    )
    rejected = read_rejected(tmp_path / "out")
    assert set(rejected.column("reason").to_pylist()) == {"wrong_type"}
    assert rejected.column("detail").to_pylist() == [
        *("query_id is float, not int64", "query_id is float, not int64", "query_id is bool, not int64"),
        *("query_id is str, not int64", "query_id is a number beyond int64", "query_id is float, not int64"),
        *("n is float, not int64", "n is bool, not int64"),
    ]
    assert rejected.column("query_id").to_pylist() == [None] * 6 + [99] * 2
    found = read_rankings(tmp_path / "out")
    assert sum(row["rank"] == 1 for row in found) == summary.totals.queries == 11
    assert [(row["n"], row["weight"]) for row in found if row["query_id"] == 99] == [(5, 2.0)]


def test_scores_beyond_what_a_float_holds_exactly(tmp_path: Path, model: Path) -> None:
    rows = [{**GOOD, "doc_id": str(n), "retrieval_score": 2**53 + n} for n in range(3)]
    for form, write in (("parquet", write_parquet), ("jsonl", write_jsonl)):
        run_job(write(tmp_path / f"in.{form}", rows), tmp_path / form, model)
        scores = {row["doc_id"]: row["retrieval_score"] for row in read_rankings(tmp_path / form)}
        assert scores == {"0": 2.0**53, "1": 2.0**53, "2": 2.0**53 + 2}


def test_more_rejected_rows_than_allowed_stop_the_job_and_keep_what_is_done(tmp_path: Path, model: Path) -> None:
    rows = [{**GOOD, "query_id": f"q{n}", "text": None if n in {3, 7} else "dog"} for n in range(10)]
    source = write_parquet(tmp_path / "in.parquet", rows)
    with pytest.raises(TooManyRejectedError, match=r"2 rows could not be scored \(2 null_text\), .* allows 1\."):
        run_job(source, tmp_path / "out", model, shard_pairs=1, max_rejected=1)
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    assert len(kept) == 8
    summary = run_job(source, tmp_path / "out", model, shard_pairs=1, max_rejected=2)
    assert (summary.totals.scored, summary.run_pairs) == (8, 2)
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}.items()


@pytest.mark.parametrize(
    ("allowance", "rows", "allowed"), [("0", 10, 0), ("7", 10, 7), ("0.1%", 999, 0), ("0.1%", 5000, 5), ("100%", 3, 3)]
)
def test_allowances(allowance: str, rows: int, allowed: int) -> None:
    assert allowed_rejects(allowance, rows) == allowed


class SometimesNotFinite:
    """A scorer whose logit is a pair's length, and NaN for pairs of three tokens."""

    fingerprint = "lengths"
    activation = "identity"
    listwise = False

    def encode(self, queries: Any, texts: Any) -> EncodedPairs:
        raise NotImplementedError

    def logits(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        bad = np.flatnonzero(pairs.lengths == 3).tolist()
        if bad:
            raise NonFiniteScoreError("NaN", bad)
        return pairs.lengths.astype(np.float32)


def test_pairs_without_a_finite_logit_are_rejected_alone() -> None:
    """F14."""
    lengths = np.array([2, 3, 4, 3, 1], np.int32)
    pairs = pa.table(
        {
            "source": pa.array([0] * 5, pa.int32()),
            "row": pa.array(range(5), pa.int64()),
            "query_id": ["q"] * 5,
            "doc_id": list("abcde"),
            "length": lengths,
            "document_start": pa.array([1] * 5, pa.int32()),
            "truncated": [False] * 5,
        }
    )
    names = ("source", "row", "query_id", "doc_id")
    rejected = pairs.select(names).slice(0, 0)
    for name in ("reason", "detail"):
        rejected = rejected.append_column(name, pa.array([], pa.string()))
    scored = score_shard(EncodedShard(0, pairs, rejected, np.zeros(13, np.int32)), SometimesNotFinite())
    assert scored.pairs.select(["doc_id", "logit"]).to_pydict() == {"doc_id": ["a", "c", "e"], "logit": [2, 4, 1]}
    assert scored.rejected.select(["doc_id", "reason"]).to_pydict() == {
        "doc_id": ["b", "d"],
        "reason": ["non_finite_score"] * 2,
    }
