"""A join with the flags of the job around it: buckets, files that are damaged, limits, duplicates, scores to reuse."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from rankmill.batch import job as batch
from rankmill.batch import join
from rankmill.batch.recorded import read
from rankmill.batch.summary import JobSummary
from rankmill.batch.verify import verify
from rankmill.errors import InputError
from rankmill.storage.store import Store
from tests.batch.conftest import Row, write_jsonl, write_parquet
from tests.batch.counting_scorer import asked
from tests.batch.jobs import read_rankings, read_rejected, run_job, run_on_ray, settings_for
from tests.batch.join_inputs import FORMS, Tables, beir, parquet, shared_candidates, tables_of, write_trec
from tests.conftest import S3Bucket

COUNTING = "python:tests.batch.counting_scorer:score"


@pytest.fixture
def shared(rows: list[Row]) -> list[Row]:
    return shared_candidates(rows)


@pytest.fixture(autouse=True)
def _small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small input has many partitions, files and groups of shards."""
    monkeypatch.setattr(join, "_BYTES", 20_000)
    monkeypatch.setattr("rankmill.batch.group._CHUNK_PAIRS", 100)


def uploaded(s3: S3Bucket, folder: Path, tables: Tables) -> Tables:
    """The same tables in a bucket."""
    client = boto3.client("s3")
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), s3.bucket, f"in/{path.relative_to(folder)}")
    client.close()
    return {name: s3.uri(f"in/{Path(path).relative_to(folder)}") for name, path in tables.items()}


def assert_the_same_from_buckets(run: Callable[..., JobSummary], local: Path, tables: Tables, s3: S3Bucket) -> None:
    """Whatever `run` makes of the tables in a bucket is what `local` holds."""
    summary = run(output=s3.uri("out"), **uploaded(s3, local.parent / "in", tables))
    mine, theirs = read_rankings(s3.uri("out")), read_rankings(local)
    assert [(row["query_id"], row["doc_id"], row["rank"]) for row in mine] == [
        (row["query_id"], row["doc_id"], row["rank"]) for row in theirs
    ]
    assert [row["logit"] for row in mine] == pytest.approx([row["logit"] for row in theirs], abs=1e-5)
    store = Store(s3.uri("out"))
    assert summary.totals.scored == len(theirs)
    assert verify(read(store), deep=True).whole
    assert not [key for key in store.sizes() if key.startswith(join.FOLDER)]


def test_everything_can_lie_in_buckets(tmp_path: Path, model: Path, shared: list[Row], s3: S3Bucket) -> None:
    (tmp_path / "in").mkdir()
    tables = parquet(tmp_path / "in", shared)
    run_job(output=tmp_path / "out", model=model, **tables)
    assert_the_same_from_buckets(partial(run_job, model=model), tmp_path / "out", tables, s3)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_everything_can_lie_in_buckets_on_ray(tmp_path: Path, shared: list[Row], s3: S3Bucket) -> None:
    (tmp_path / "in").mkdir()
    tables = FORMS["trec.gz in parts"](tmp_path / "in", shared)
    run_job(output=tmp_path / "out", model=COUNTING, **tables)
    assert_the_same_from_buckets(partial(run_on_ray, model=COUNTING, workers=1), tmp_path / "out", tables, s3)


def spoil(path: Path) -> None:
    """Flip a byte of the first page of text; what stands in the footer is as it was."""
    body = bytearray(path.read_bytes())
    column = next(
        column
        for column in (
            pq.read_metadata(path).row_group(0).column(index) for index in range(pq.read_metadata(path).num_columns)
        )
        if column.path_in_schema == "text"
    )
    body[column.data_page_offset + column.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(body)


def corpus_in_two(folder: Path, pairs: list[Row]) -> tuple[Tables, set[str]]:
    """The corpus as two Parquet files with page checksums, and the ids of those documents that the second holds."""
    tables = beir(folder, pairs)
    documents = {row["doc_id"]: {"doc_id": row["doc_id"], "title": row["title"], "text": row["text"]} for row in pairs}
    halves = [[*documents.values()][number::2] for number in range(2)]
    for number, half in enumerate(halves):
        write_parquet(folder / "corpus" / f"{number}.parquet", half)
        table = pq.read_table(folder / "corpus" / f"{number}.parquet")
        pq.write_table(table, folder / "corpus" / f"{number}.parquet", write_page_checksum=True, use_dictionary=False)
    return {**tables, "corpus": str(folder / "corpus")}, {row["doc_id"] for row in halves[1]}


@pytest.mark.parametrize("damage", ["not Parquet at all", "a flipped byte"])
def test_pairs_of_documents_that_cannot_be_read_are_rejected(
    damage: str, tmp_path: Path, model: Path, shared: list[Row]
) -> None:
    tables, lost = corpus_in_two(tmp_path, shared)
    bad = tmp_path / "corpus" / "1.parquet"
    if damage == "a flipped byte":
        spoil(bad)
    else:
        bad.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"1\.parquet"):
        run_job(output=tmp_path / "refused", model=model, **tables)
    assert not list(tmp_path.glob("refused/part-*"))
    run_job(output=tmp_path / "out", model=model, bad_files="reject", max_rejected="100%", **tables)
    rejected = read_rejected(tmp_path / "out").to_pylist()
    assert {row["doc_id"] for row in rejected} == lost
    assert {row["reason"] for row in rejected} == {"unknown_document"}
    assert all("in what can be read of it" in row["detail"] and "1.parquet" in row["detail"] for row in rejected)
    found = read_rankings(tmp_path / "out")
    assert len(found) + len(rejected) == len(shared)
    assert not lost & {row["doc_id"] for row in found}
    assert verify(read(Store(str(tmp_path / "out"))), deep=True).whole


def test_pairs_of_queries_that_cannot_be_read_are_rejected(tmp_path: Path, model: Path, shared: list[Row]) -> None:
    tables = beir(tmp_path, shared)
    queries = tmp_path / "queries"
    queries.mkdir()
    Path(tables["queries"]).rename(queries / "0.jsonl")
    body = (queries / "0.jsonl").read_bytes().splitlines(keepends=True)
    lines = [line for line in body if line.strip()]
    (queries / "0.jsonl").write_bytes(b"".join(lines[:5]))
    (queries / "1.jsonl").write_bytes(b"")
    run_job(
        output=tmp_path / "out",
        model=model,
        bad_files="reject",
        max_rejected="100%",
        **{**tables, "queries": str(queries)},
    )
    rejected = read_rejected(tmp_path / "out").to_pylist()
    assert {row["reason"] for row in rejected} == {"unknown_query"}
    assert all("1.jsonl: it is empty" in row["detail"] for row in rejected)
    assert len({row["query_id"] for row in read_rankings(tmp_path / "out")}) == 5


def test_a_damaged_file_of_the_run_is_rejected_as_one_row(tmp_path: Path, model: Path, shared: list[Row]) -> None:
    tables = FORMS["trec.gz in parts"](tmp_path, shared)
    bad = tmp_path / "runs" / "1.trec.gz"
    bad.write_bytes(bad.read_bytes()[:200])
    with pytest.raises(InputError, match=r"1\.trec\.gz"):
        run_job(output=tmp_path / "out", model=model, **tables)
    summary = run_job(output=tmp_path / "out", model=model, bad_files="reject", max_rejected=1, **tables)
    assert [row["reason"] for row in read_rejected(tmp_path / "out").to_pylist()] == ["unreadable_file"]
    assert summary.totals.scored == len(shared[0::3]) + len(shared[2::3])


def test_files_of_which_none_can_be_read_are_refused_also_where_some_may_be(
    tmp_path: Path, model: Path, shared: list[Row]
) -> None:
    tables = beir(tmp_path, shared)
    for name in ("source", "corpus", "queries"):
        empty = tmp_path / f"empty-{name}{''.join(Path(tables[name]).suffixes)}"
        empty.write_bytes(b"")
        with pytest.raises(InputError, match=r"it is empty \(0 bytes\)"):
            run_job(output=tmp_path / "out", model=model, bad_files="reject", **{**tables, name: str(empty)})
        assert not (tmp_path / "out").exists()


def test_queries_and_ids_have_limits_too(tmp_path: Path, model: Path) -> None:
    run = [{"query_id": "q", "doc_id": "d"}, {"query_id": "long", "doc_id": "d"}, {"query_id": "q", "doc_id": "x" * 90}]
    tables = tables_of(
        source=write_parquet(tmp_path / "run.parquet", run),
        queries=write_jsonl(
            tmp_path / "queries.jsonl", [{"_id": "q", "text": "fox"}, {"_id": "long", "text": "fox " * 20}]
        ),
        corpus=write_jsonl(tmp_path / "corpus.jsonl", [{"_id": "d", "text": "dog"}]),
    )
    run_job(output=tmp_path / "out", model=model, max_text_bytes=60, max_rejected="100%", **tables)
    rejected = read_rejected(tmp_path / "out").select(["row", "reason", "detail"]).to_pylist()
    assert [(row["row"], row["reason"]) for row in rejected] == [(1, "text_too_large"), (2, "text_too_large")]
    assert "more than the 60 bytes" in rejected[0]["detail"]
    assert [row["doc_id"] for row in read_rankings(tmp_path / "out")] == ["d"]


def test_a_document_that_is_twice_in_a_query_of_the_run_is_refused_on_demand(
    tmp_path: Path, model: Path, shared: list[Row]
) -> None:
    tables = beir(tmp_path, shared)
    run_job(output=tmp_path / "good", model=model, require_unique=True, **tables)
    write_trec(Path(tables["source"]), [*shared, shared[0]])
    with pytest.raises(InputError, match="--require-unique refuses"):
        run_job(output=tmp_path / "out", model=model, require_unique=True, **tables)
    summary = run_job(output=tmp_path / "again", model=model, **tables)
    assert summary.totals.duplicates == 1


@pytest.mark.parametrize("joined_first", [True, False])
def test_scores_pass_between_joins_and_candidates(joined_first: bool, tmp_path: Path, shared: list[Row]) -> None:  # noqa: FBT001
    """A pair is known by its texts, wherever they come from."""
    candidates: dict[str, Any] = {"source": write_parquet(tmp_path / "pairs.parquet", shared)}
    tables: dict[str, Any] = dict(parquet(tmp_path, shared))
    first, second = (tables, candidates) if joined_first else (candidates, tables)
    asked.clear()
    run_job(output=tmp_path / "old", model=COUNTING, keep_scores=True, **first)
    assert asked
    asked.clear()
    summary = run_job(output=tmp_path / "new", model=COUNTING, reuse=str(tmp_path / "old"), **second)
    assert asked == []
    assert summary.totals.reused == len(shared)
    assert read_rankings(tmp_path / "new") == read_rankings(tmp_path / "old")
    assert verify(read(Store(str(tmp_path / "new"))), deep=True).whole


@pytest.mark.parametrize("form", ["parquet", "beir"])
def test_kept_columns_come_from_the_run_or_else_from_the_corpus(
    form: str, tmp_path: Path, model: Path, shared: list[Row]
) -> None:
    keep = "title,lang" if form == "parquet" else "title"  # TREC's format has no room for more
    run_job(write_parquet(tmp_path / "pairs.parquet", shared), tmp_path / "expected", model, keep=keep, shape="nested")
    run_job(output=tmp_path / "out", model=model, keep=keep, shape="nested", **FORMS[form](tmp_path, shared))

    def kept(output: Path) -> list[tuple[Any, ...]]:
        rows = sorted(read_rankings(output), key=lambda row: row["query_id"])
        names = ("doc_id", "rank", *keep.split(","))
        return [tuple(found[name] for name in names) for row in rows for found in row["candidates"]]

    assert kept(tmp_path / "out") == kept(tmp_path / "expected")
    assert {title for _, _, title, *_ in kept(tmp_path / "out")} == {"", "A title", None}


def test_kept_columns_that_do_not_fit_are_refused(tmp_path: Path, model: Path, shared: list[Row]) -> None:
    tables = beir(tmp_path, shared)
    with pytest.raises(InputError, match=r"corpus\.jsonl\.gz: no column url \(it has _id, .*title"):
        run_job(output=tmp_path / "out", model=model, keep="url", **tables)
    for number, year in enumerate((1999, "1999")):
        write_parquet(tmp_path / "corpus" / f"{number}.parquet", [{"doc_id": "d", "text": "dog", "year": year}])
    with pytest.raises(InputError, match=r"1\.parquet: year is string, and int64 in .*0\.parquet"):
        run_job(output=tmp_path / "out", model=model, keep="year", **{**tables, "corpus": str(tmp_path / "corpus")})
    assert not (tmp_path / "out").exists()


def test_texts_of_the_runs_own_are_ignored_aloud(
    tmp_path: Path, model: Path, shared: list[Row], caplog: pytest.LogCaptureFixture
) -> None:
    tables = parquet(tmp_path / "in", shared)
    batch.prepare(settings_for(tables.pop("source"), tmp_path / "out", model, **tables))
    assert not caplog.messages, "the control: a run without texts"
    source = write_parquet(tmp_path / "pairs.parquet", shared)
    batch.prepare(settings_for(source, tmp_path / "out", model, **tables))
    (said,) = caplog.messages
    assert "its own texts (query, text, title) are not read, because --queries and --corpus are given" in said


def test_one_table_without_the_other_is_refused(tmp_path: Path, model: Path) -> None:
    with pytest.raises(ValidationError, match="--queries needs --corpus"):
        settings_for(tmp_path, tmp_path / "out", model, queries="q.jsonl")
    with pytest.raises(ValidationError, match="--corpus needs --queries"):
        settings_for(tmp_path, tmp_path / "out", model, corpus="c.jsonl")
