"""A run with its queries and its corpus is the same job as candidates that bring their texts."""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.batch import job as batch
from rankmill.batch import join
from rankmill.batch.executor import InProcess
from rankmill.batch.receipts import Receipt
from rankmill.batch.recorded import read
from rankmill.batch.stages import Encode, Write
from rankmill.batch.sweep import leftovers
from rankmill.batch.verify import verify
from rankmill.cli import retry_rejected
from rankmill.errors import InputError, OutputConflictError, TooManyRejectedError
from rankmill.scoring.options import ScorerOptions
from rankmill.settings.retry import RetrySettings
from rankmill.storage.store import Store
from tests.batch.conftest import Row, write_jsonl, write_parquet
from tests.batch.jobs import read_rankings, read_rejected, run_job, run_on_ray, settings_for
from tests.batch.join_inputs import FORMS, Tables, bad_tables, beir, parquet, shared_candidates, tables_of

T = TypeVar("T")
R = TypeVar("R")


@pytest.fixture
def shared(rows: list[Row]) -> list[Row]:
    return shared_candidates(rows)


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a small input has many partitions, files and groups of shards."""
    monkeypatch.setattr(join, "_BYTES", 4000)
    monkeypatch.setattr("rankmill.batch.group._CHUNK_PAIRS", 50)


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize("form", FORMS)
def test_a_run_with_texts_is_ranked_like_candidates_with_texts(
    form: str, tmp_path: Path, model: Path, shared: list[Row]
) -> None:
    whole = write_parquet(tmp_path / "pairs.parquet", shared)
    run_job(whole, tmp_path / "expected", model)
    tables = FORMS[form](tmp_path, shared)
    summary = run_job(output=tmp_path / "out", model=model, **tables)
    assert summary.totals.pairs_in == summary.totals.rows_out == len(shared)
    names = ("query_id", "doc_id", "rank", "retrieval_score", "truncated")
    found, expected = read_rankings(tmp_path / "out"), read_rankings(tmp_path / "expected")
    assert [[row[name] for name in names] for row in found] == [[row[name] for name in names] for row in expected]
    assert [row["logit"] for row in found] == pytest.approx([row["logit"] for row in expected], abs=1e-5)
    assert verify(read(Store(str(tmp_path / "out"))), deep=True).whole
    assert not list((tmp_path / "out" / join.FOLDER).rglob("*.*"))


@pytest.mark.usefixtures("small_tasks")
def test_columns_of_the_run_are_kept_and_documents_follow_the_template(
    tmp_path: Path, model: Path, shared: list[Row]
) -> None:
    whole = write_parquet(tmp_path / "pairs.parquet", shared)
    settings: dict[str, Any] = {"keep": "lang", "document_template": "{title}: {text}"}
    run_job(whole, tmp_path / "expected", model, **settings)
    run_job(output=tmp_path / "out", model=model, **settings, **parquet(tmp_path, shared))
    found, expected = read_rankings(tmp_path / "out"), read_rankings(tmp_path / "expected")
    assert [(row["doc_id"], row["lang"]) for row in found] == [(row["doc_id"], row["lang"]) for row in expected]
    assert [row["logit"] for row in found] == pytest.approx([row["logit"] for row in expected], abs=1e-5)


@pytest.mark.usefixtures("local_ray")
def test_on_ray(tmp_path: Path, shared: list[Row]) -> None:
    scorer = "python:tests.batch.counting_scorer:score"  # workers need not import torch for it
    run_job(output=tmp_path / "expected", model=scorer, **beir(tmp_path, shared))
    run_on_ray(output=tmp_path / "out", model=scorer, workers=1, **beir(tmp_path, shared))
    assert read_rankings(tmp_path / "out") == read_rankings(tmp_path / "expected")


def test_numbers_meet_their_digits_and_come_back_as_numbers(tmp_path: Path, model: Path) -> None:
    pairs = [{"query_id": 7, "doc_id": n} for n in (1, 2, 30)]
    tables = tables_of(
        source=write_parquet(tmp_path / "run.parquet", pairs),
        queries=write_jsonl(tmp_path / "queries.jsonl", [{"_id": "7", "text": "fox"}]),
        corpus=write_jsonl(tmp_path / "corpus.jsonl", [{"_id": str(n), "text": "dog"} for n in range(31)]),
    )
    run_job(output=tmp_path / "out", model=model, **tables)
    table = pq.read_table(tmp_path / "out")
    assert (table.schema.field("query_id").type, table.schema.field("doc_id").type) == (pa.int64(), pa.int64())
    assert sorted(table.column("doc_id").to_pylist()) == [1, 2, 30]


@pytest.mark.usefixtures("small_tasks")
def test_what_cannot_be_joined_is_rejected_with_the_reason(tmp_path: Path, model: Path) -> None:
    tables = bad_tables(tmp_path)
    summary = run_job(output=tmp_path / "out", model=model, max_rejected="100%", **tables)
    rejected = read_rejected(tmp_path / "out")
    assert list(zip(*(rejected.column(name).to_pylist() for name in ("row", "doc_id", "reason")), strict=True)) == [
        (1, "gone", "unknown_document"),
        (2, "good", "unknown_query"),
        (3, "empty", "null_text"),
        (4, "typed", "wrong_type"),
        (5, None, "invalid_line"),
        (6, "good", "null_query"),
    ]
    assert set(rejected.column("source").to_pylist()) == {tables["source"]}
    assert rejected.column("detail").to_pylist()[0] == "--corpus has no document of this id"
    assert rejected.column("detail").to_pylist()[3] == "text is int, not string"
    found = {row["doc_id"]: row["logit"] for row in read_rankings(tmp_path / "out")}
    assert found.keys() == {"good", "twice"}
    assert found["good"] == pytest.approx(found["twice"], abs=1e-6)  # the text that comes first
    assert (summary.totals.pairs_in, summary.totals.rejected) == (8, 6)


@pytest.mark.parametrize("form", ["parquet", "beir"])
def test_a_document_that_is_too_large_is_rejected_with_its_pairs(
    form: str, tmp_path: Path, model: Path, shared: list[Row]
) -> None:
    pairs = [{**row, "text": "x" * 5000 if row["doc_id"] == "d12-0" else "dog"} for row in shared]
    run_job(
        output=tmp_path / "out", model=model, max_rejected="100%", max_text_bytes=2000, **FORMS[form](tmp_path, pairs)
    )
    rejected = read_rejected(tmp_path / "out").select(["doc_id", "reason"]).to_pylist()
    assert rejected == [{"doc_id": "d12-0", "reason": "text_too_large"}] * 13


def test_too_many_unknown_documents_stop_the_job(tmp_path: Path, model: Path) -> None:
    with pytest.raises(TooManyRejectedError, match=r"\(\d+ unknown_document, .*\d+ \w+\), of "):
        run_job(output=tmp_path / "out", model=model, **bad_tables(tmp_path))


class KilledAfter:
    """An executor whose process dies after so many tasks, as far as the output can tell; counts them."""

    workers = 1

    def __init__(self, tasks: int) -> None:
        self.done: list[str] = []
        self._tasks = tasks

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        for item in items:
            if len(self.done) == self._tasks:
                raise KeyboardInterrupt
            result = function(item)
            self.done.append(type(item).__name__)
            yield result

    def run_shards(self, encode: Encode, scorer: ScorerOptions, write: Write) -> Generator[Receipt]:
        return InProcess().run_shards(encode, scorer, write)


def joined_files(output: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in (output / join.FOLDER).rglob("*.*")}


@pytest.mark.usefixtures("small_tasks")
@pytest.mark.parametrize("tasks", [2, 7, 25, 45])
def test_a_join_that_was_killed_goes_on_where_it_stopped(
    tasks: int, tmp_path: Path, model: Path, shared: list[Row]
) -> None:
    tables, output = beir(tmp_path, shared), tmp_path / "out"
    settings = settings_for(tables.pop("source"), output, model, **tables)
    with pytest.raises(KeyboardInterrupt):
        batch.run(batch.prepare(settings), KilledAfter(tasks))
    before = joined_files(output)
    assert before
    assert not any(key.startswith(join.FOLDER) for key in leftovers(read(Store(str(output)))).files)
    assert not (output / "_SUCCESS").exists()

    class Watching(InProcess):
        """Looks at the files of the join before they are tidied away."""

        def run_shards(self, encode: Encode, scorer: ScorerOptions, write: Write) -> Generator[Receipt]:
            found.update(joined_files(output))
            yield from InProcess.run_shards(self, encode, scorer, write)

    found: dict[str, int] = {}
    summary = batch.run(batch.prepare(settings), Watching())
    assert summary.totals.rows_out == len(shared)
    assert before.items() <= found.items()  # nothing was written again, nothing is there twice
    assert verify(read(Store(str(output))), deep=True).whole


@pytest.mark.usefixtures("small_tasks")
def test_a_join_that_is_done_is_not_repeated(tmp_path: Path, model: Path, shared: list[Row]) -> None:
    tables, output = beir(tmp_path, shared), tmp_path / "out"
    settings = settings_for(tables.pop("source"), output, model, **tables)

    class Dies(InProcess):
        def run_shards(self, encode: Encode, scorer: ScorerOptions, write: Write) -> Generator[Receipt]:
            yield next(InProcess.run_shards(self, encode, scorer, write))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        batch.run(batch.prepare(settings), Dies())
    executor = KilledAfter(1000)
    summary = batch.run(batch.prepare(settings), executor)
    assert executor.done == ["int"]  # the run is looked at, for the plan; no task of the join
    assert (summary.totals.rows_out, summary.run_pairs < len(shared)) == (len(shared), True)


@pytest.mark.parametrize("table", ["queries", "corpus"])
def test_other_texts_are_another_job(table: str, tmp_path: Path, model: Path, shared: list[Row]) -> None:
    tables = beir(tmp_path, shared)
    run_job(output=tmp_path / "out", model=model, **tables)
    assert run_job(output=tmp_path / "out", model=model, **tables).already_complete
    tables[table] = str(write_jsonl(tmp_path / "other.jsonl", [{"_id": "q1", "text": "fox"}]))
    with pytest.raises(OutputConflictError, match=r"other\.jsonl was not part of it"):
        run_job(output=tmp_path / "out", model=model, **tables)


def test_rejected_pairs_can_be_tried_again(tmp_path: Path, model: Path) -> None:
    run_job(output=tmp_path / "out", model=model, max_rejected="100%", **bad_tables(tmp_path))
    again = RetrySettings(
        finished=str(tmp_path / "out"), output=str(tmp_path / "new"), reason=("unknown_document",), quiet=True
    )
    job, retry = retry_rejected.choose(again)
    batch.run(batch.prepare(job, retry), InProcess())
    assert {row["doc_id"] for row in read_rankings(tmp_path / "new")} == {"good", "twice"}  # of the whole query
    assert read_rejected(tmp_path / "new").column("reason").to_pylist()[0] == "unknown_document"


def refused(output: Path, model: Path, tables: Tables) -> str:
    with pytest.raises(InputError) as caught:
        run_job(output=output, model=model, **tables)
    assert not output.exists()
    return str(caught.value)


def test_tables_that_cannot_be_used_are_refused_before_anything_is_written(
    tmp_path: Path, model: Path, shared: list[Row]
) -> None:
    tables = beir(tmp_path, shared)
    files = {
        "no id": write_jsonl(tmp_path / "no_id.jsonl", [{"name": 1, "text": "dog"}]),
        "no text": write_parquet(tmp_path / "no_text.parquet", [{"doc_id": "1", "body": "dog"}]),
        "empty": write_jsonl(tmp_path / "empty.jsonl", []),
        "csv": tmp_path / "corpus.csv",
    }
    files["csv"].write_text("1,dog")
    bad = tables_of(**files)
    out = tmp_path / "out"
    assert "no column doc_id" in refused(out, model, {**tables, "corpus": bad["no id"]})
    assert "no column query_id" in refused(out, model, {**tables, "queries": bad["no id"]})
    assert "no column text" in refused(out, model, {**tables, "corpus": bad["no text"]})
    assert "it is empty (0 bytes)" in refused(out, model, {**tables, "corpus": bad["empty"]})
    assert "Parquet or JSONL" in refused(out, model, {**tables, "corpus": bad["csv"]})
    assert "does not exist" in refused(out, model, {**tables, "corpus": "nothing.jsonl"})
    assert "it must be a run" in refused(out, model, {**tables, "source": tables["queries"]})
    assert "no column query_id" in refused(out, model, {**tables, "source": bad["no text"]})


@pytest.mark.slow
def test_a_join_holds_a_small_part_of_its_corpus(tmp_path: Path, model: Path) -> None:
    """Measured with 64 MiB a task: 400 MiB, of a corpus of 300 MB; 1,280 MiB with tasks that hold all of it."""
    words = " ".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=1500))  # noqa: S311 - test data
    documents, queries = 100_000, 300
    with (tmp_path / "corpus.jsonl").open("w") as out:  # 300 MB
        out.writelines(f'{{"_id": "d{n}", "text": "{n} {words}"}}\n' for n in range(documents))
    with (tmp_path / "run.trec").open("w") as out:
        out.writelines(f"q{n % queries} Q0 d{n} 1 {n} x\n" for n in range(documents))
    tables = tables_of(
        source=tmp_path / "run.trec",
        queries=write_jsonl(tmp_path / "queries.jsonl", [{"_id": f"q{n}", "text": "fox"} for n in range(queries)]),
        corpus=tmp_path / "corpus.jsonl",
    )
    program = f"""
import json, resource, sys
from rankmill.batch import job as batch
from rankmill.batch.executor import InProcess
from tests.batch.jobs import settings_for
tables = json.loads(sys.argv[1])
def look():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
class JoinOnly(InProcess):
    def run_shards(self, encode, scorer, write):
        print(look())
        sys.exit()
job = batch.prepare(settings_for(tables.pop("source"), {str(tmp_path / "out")!r}, {str(model)!r}, **tables))
print(look())
batch.run(job, JoinOnly())
"""
    command = [sys.executable, "-c", program, json.dumps(tables)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    before, after = map(int, done.stdout.split())
    assert after - before < 700, f"{before} MiB before the join, {after} MiB at its end"
