"""What a job puts out: the right rankings, whatever form the input has and however the work is cut."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import transformers

from rankmill.batch import group
from rankmill.errors import InputError
from rankmill.settings.rerank import Columns
from rankmill.tables import lines, parquet
from rankmill.tables.trec import read_run
from tests.batch.conftest import FORMS, Row, nested, write_jsonl, write_parquet
from tests.batch.jobs import read_rankings, run_job, run_on_ray


@pytest.fixture(scope="module")
def expected(model: Path, rows: list[Row]) -> list[dict[str, Any]]:
    """Rankings from a bare transformers loop: one pair at a time, its own assembly and truncation."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    network = transformers.AutoModelForSequenceClassification.from_pretrained(model, dtype=torch.float32).eval()
    scored = []
    for position, row in enumerate(rows):
        document = f"{row['title']} {row['text']}" if row["title"] else row["text"]
        inputs = tokenizer(row["query"], document, truncation="only_second", max_length=128, return_tensors="pt")
        with torch.inference_mode():
            logit = network(**inputs).logits[0, 0].item()
        scored.append((row["query_id"], -logit, -row["retrieval_score"], position, row["doc_id"]))
    ranked: list[dict[str, Any]] = []
    for query_id, negative, _, _, doc_id in sorted(scored):
        rank = ranked[-1]["rank"] + 1 if ranked and ranked[-1]["query_id"] == query_id else 1
        ranked.append({"query_id": query_id, "doc_id": doc_id, "rank": rank, "logit": -negative})
    return ranked


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert [(r["query_id"], r["doc_id"], r["rank"]) for r in found] == [
        (r["query_id"], r["doc_id"], r["rank"]) for r in expected
    ]
    np.testing.assert_allclose([r["logit"] for r in found], [r["logit"] for r in expected], atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_rankings_equal_a_bare_transformers_loop(
    form: str, tmp_path: Path, model: Path, rows: list[Row], expected: list[dict[str, Any]]
) -> None:
    source = FORMS[form](tmp_path / "in", rows)
    summary = run_job(source, tmp_path / "out", model)
    assert (summary.totals.queries, summary.totals.pairs_in, summary.totals.rejected) == (13, len(rows), 0)
    assert_same(read_rankings(tmp_path / "out"), expected)


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize(
    ("form", "workers", "shard_pairs"),
    [("seven files", (1, 3), 1), pytest.param("shuffled over files", (1, 1), 30, marks=pytest.mark.slow)],
)
def test_workers_and_shards_change_nothing_on_ray(
    form: str,
    workers: tuple[int, int],
    shard_pairs: int,
    tmp_path: Path,
    model: Path,
    rows: list[Row],
    expected: list[dict[str, Any]],
) -> None:
    source = FORMS[form](tmp_path / "in", rows)
    summary = run_on_ray(
        source, tmp_path / "out", model, workers=workers, shard_pairs=shard_pairs, cpus_per_worker=1, keep="lang"
    )
    assert_same(read_rankings(tmp_path / "out"), expected)
    assert (summary.totals.queries, summary.totals.scored, summary.workers) == (13, len(rows), workers[1])
    assert 0 < summary.scoring_share < 1


def test_output_has_the_documented_columns_and_order(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    run_job(write_parquet(tmp_path / "in.parquet", rows), tmp_path / "out", model, keep="lang,query", top_k=3)
    table = pq.read_table(tmp_path / "out")
    assert [f"{field.name}: {field.type}" for field in table.schema] == [
        "query_id: string",
        "doc_id: string",
        "rank: int32",
        "score: float",
        "logit: float",
        "retrieval_score: double",
        "retrieval_rank: int32",
        "truncated: bool",
        "lang: string",
        "query: string",
    ]
    found = table.to_pylist()
    by_doc = {row["doc_id"]: row for row in rows}
    for row in found:
        source = by_doc[row["doc_id"]]
        assert (row["lang"], row["query"], row["query_id"]) == (source["lang"], source["query"], source["query_id"])
        assert row["score"] == pytest.approx(1 / (1 + np.exp(-row["logit"])), abs=1e-6)
    for query_id in {row["query_id"] for row in rows}:
        ranking = [row for row in found if row["query_id"] == query_id]
        available = sum(row["query_id"] == query_id for row in rows)
        assert [row["rank"] for row in ranking] == list(range(1, min(3, available) + 1))
        assert [row["logit"] for row in ranking] == sorted((row["logit"] for row in ranking), reverse=True)
    positions = [row["query_id"] for row in found]
    assert sum(a != b for a, b in pairwise(positions)) == 12, "a query's rows are together"


def test_metadata_says_what_scored_the_part(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    run_job(write_parquet(tmp_path / "in.parquet", rows), tmp_path / "out", model)
    metadata = pq.read_schema(tmp_path / "out" / "part-000000.parquet").metadata
    assert metadata[b"rankmill.model"] == str(model).encode()
    assert len(metadata[b"rankmill.scorer"]) == 64


def logits(output: Path) -> dict[str, float]:
    return {row["doc_id"]: row["logit"] for row in read_rankings(output)}


def test_the_title_as_text_is_read_once(tmp_path: Path, model: Path) -> None:
    row: Row = {"query_id": "q", "query": "fox", "doc_id": "d", "title": "Shoes"}
    for form, write in (("parquet", write_parquet), ("jsonl", write_jsonl)):
        source = write(tmp_path / f"titles.{form}", [row])
        run_job(source, tmp_path / form, model, columns=Columns(text="title"))
    run_job(
        write_parquet(tmp_path / "texts.parquet", [{**row, "text": "Shoes", "title": None}]), tmp_path / "out", model
    )
    assert logits(tmp_path / "parquet") == logits(tmp_path / "jsonl") == logits(tmp_path / "out")


@pytest.mark.parametrize("shape", ["pairs", "nested"])
def test_columns_of_jsonl_may_come_late(shape: str, tmp_path: Path, model: Path, rows: list[Row]) -> None:
    """Neither behind the sampled lines nor in one of several files are titles and scores ignored."""
    plain = {key: value for key, value in rows[0].items() if key not in {"title", "retrieval_score"}}
    early = [{**plain, "query_id": f"early{n}"} for n in range(1100)]
    late = rows if shape == "pairs" else nested(rows)
    first = early if shape == "pairs" else nested(early)
    write_parquet(tmp_path / "in.parquet", late)
    run_job(tmp_path / "in.parquet", tmp_path / "expected", model)
    expected = read_rankings(tmp_path / "expected")
    write_jsonl(tmp_path / "one.jsonl", [*first, *late])
    write_jsonl(tmp_path / "two" / "a.jsonl", first[:1])
    write_jsonl(tmp_path / "two" / "b.jsonl", late)
    for source in (tmp_path / "one.jsonl", tmp_path / "two"):
        output = tmp_path / f"{source.name}-out"
        run_job(source, output, model, shard_pairs=500)
        found = [row for row in read_rankings(output) if not row["query_id"].startswith("early")]
        assert_same(found, expected)
        assert [row["retrieval_score"] for row in found] == [row["retrieval_score"] for row in expected]
        assert [row["retrieval_rank"] for row in found] == [row["retrieval_rank"] for row in expected]


def test_parquet_without_titles_beside_jsonl(tmp_path: Path, model: Path) -> None:
    row: Row = {"query_id": "q", "query": "fox", "doc_id": "parquet", "text": "dog"}
    write_parquet(tmp_path / "in" / "a.parquet", [row])
    write_jsonl(tmp_path / "in" / "b.jsonl", [{**row, "doc_id": "jsonl"}, {**row, "doc_id": "title", "title": "Cat"}])
    run_job(tmp_path / "in", tmp_path / "out", model)
    found = logits(tmp_path / "out")
    assert found["parquet"] == pytest.approx(found["jsonl"], abs=1e-4)
    assert abs(found["parquet"] - found["title"]) > 1e-3


@pytest.mark.parametrize("form", ["shuffled over files", "nested, queries split over files", "jsonl.gz, shuffled"])
def test_scattered_rows_are_written_in_files_of_a_bounded_size(
    form: str,
    tmp_path: Path,
    model: Path,
    rows: list[Row],
    expected: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group, "_FILE_BYTES", 1)  # every batch that is read makes a file
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 5)
    monkeypatch.setattr(lines, "_CHUNK_LINES", 5)
    run_job(FORMS[form](tmp_path / "in", rows), tmp_path / "out", model)
    assert_same(read_rankings(tmp_path / "out"), expected)


def test_integer_ids_come_back_as_integers(tmp_path: Path, model: Path) -> None:
    rows = [
        {"query_id": q, "query": "sorted list", "doc_id": 10 * q + d, "text": f"{d}"} for q in (2, 1) for d in (1, 2)
    ]
    run_job(write_parquet(tmp_path / "in.parquet", rows), tmp_path / "out", model)
    table = pq.read_table(tmp_path / "out")
    assert (str(table.schema.field("query_id").type), str(table.schema.field("doc_id").type)) == ("int64", "int64")
    assert sorted(table.column("doc_id").to_pylist()) == [11, 12, 21, 22]
    assert table.column("retrieval_score").null_count == table.column("retrieval_rank").null_count == 4


def test_nested_output_and_candidates_fields_are_kept(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", [{**row, "market": "us"} for row in nested(rows)])
    run_job(source, tmp_path / "nested", model, shape="nested", keep="lang,market", top_k=2)
    run_job(source, tmp_path / "pairs", model, keep="lang,market", top_k=2)
    flat = [
        {"query_id": row["query_id"], "market": row["market"], **candidate}
        for row in pq.read_table(tmp_path / "nested").to_pylist()
        for candidate in row["candidates"]
    ]
    flat.sort(key=lambda row: (row["query_id"], row["rank"]))
    assert flat == read_rankings(tmp_path / "pairs")


def test_equal_logits_follow_the_first_stage_then_the_input(tmp_path: Path, model: Path) -> None:
    scores = [1.0, 3.0, None, 3.0]
    rows = [
        {"query_id": "q", "query": "fox", "doc_id": f"d{n}", "text": "the same", "retrieval_score": score}
        for n, score in enumerate(scores)
    ]
    run_job(write_parquet(tmp_path / "in.parquet", rows), tmp_path / "out", model)
    found = read_rankings(tmp_path / "out")
    assert [row["doc_id"] for row in found] == ["d1", "d3", "d0", "d2"]
    assert [row["retrieval_rank"] for row in found] == [1, 2, 3, None]


def test_columns_and_document_template_are_mapped(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    renamed = [
        {"qid": r["query_id"], "q": r["query"], "pid": r["doc_id"], "body": r["text"], "h": "Head"} for r in rows
    ]
    plain = [{**r, "text": f"[Head] {r['text']}", "title": None} for r in rows]
    columns = {"query_id": "qid", "query": "q", "doc_id": "pid"}
    run_job(
        write_parquet(tmp_path / "renamed.parquet", renamed),
        tmp_path / "a",
        model,
        columns=columns,
        document_template="[{h}] {body}",
    )
    run_job(write_parquet(tmp_path / "plain.parquet", plain), tmp_path / "b", model)
    assert_same(read_rankings(tmp_path / "a"), read_rankings(tmp_path / "b"))


@pytest.mark.parametrize("shape", ["pairs", "nested"])
def test_trec_run_holds_the_same_rankings(tmp_path: Path, model: Path, rows: list[Row], shape: str) -> None:
    run = tmp_path / "run.trec.gz"
    source = write_parquet(tmp_path / "in.parquet", rows)
    run_job(source, tmp_path / "out", model, shape=shape, trec_run=str(run), top_k=5)
    run_job(source, tmp_path / "flat", model, top_k=5)
    found = read_run(str(run)).sort_by([("query_id", "ascending"), ("rank", "ascending")]).to_pylist()
    assert [(r["query_id"], r["doc_id"], r["rank"]) for r in found] == [
        (r["query_id"], r["doc_id"], r["rank"]) for r in read_rankings(tmp_path / "flat")
    ]
    again = run_job(source, tmp_path / "out", model, shape=shape, trec_run=str(tmp_path / "again.trec"), top_k=5)
    assert again.already_complete
    assert read_run(str(tmp_path / "again.trec")).equals(read_run(str(run)))


def test_ids_that_a_trec_run_cannot_carry_are_found_before_they_are_scored(
    tmp_path: Path, model: Path, rows: list[Row]
) -> None:
    named = [{**row, "doc_id": row["doc_id"].replace("-", " ")} for row in rows]
    null = {**rows[0], "doc_id": None}  # a rejected row, which no run will hold
    source = write_parquet(tmp_path / "in.parquet", [null, *rows[:20], *named[20:]])
    with pytest.raises(InputError, match=r"doc_id are empty or contain whitespace.*'d4 4'"):
        run_job(source, tmp_path / "out", model, trec_run=str(tmp_path / "run.trec"), max_rejected=1)
    assert len(list((tmp_path / "out").glob("part-*"))) == 1, "of the first shard, whose ids are good"
    assert run_job(source, tmp_path / "out", model, max_rejected=1).totals.rejected == 1


def test_one_candidate_and_twenty_thousand(tmp_path: Path, model: Path) -> None:
    rows = [{"query_id": "small", "query": "fox", "doc_id": "only", "text": "dog"}]
    rows += [{"query_id": "big", "query": "list", "doc_id": str(n), "text": f"{n % 977}"} for n in range(20_000)]
    summary = run_job(write_parquet(tmp_path / "in.parquet", rows), tmp_path / "out", model, shard_pairs=500)
    assert (summary.totals.shards, summary.totals.rows_out) == (2, 20_001)
    ranks = pq.read_table(tmp_path / "out", filters=[("query_id", "=", "big")]).column("rank").to_pylist()
    assert ranks == list(range(1, 20_001))
