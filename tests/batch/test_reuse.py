"""Pairs that were scored before are not scored again, and nothing of the output shows it."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.batch import job as batch
from rankmill.batch import reuse
from rankmill.batch.executor import InProcess
from rankmill.batch.recorded import read
from rankmill.batch.sweep import sweep
from rankmill.batch.verify import verify
from rankmill.errors import InputError, UsageError
from rankmill.storage.store import Store
from rankmill.tables.complete import read_groups
from rankmill.tables.locate import InputFile
from tests.batch.conftest import FORMS, Row, write_parquet
from tests.batch.counting_scorer import asked
from tests.batch.jobs import read_rankings, read_rejected, run_job, run_on_ray, settings_for
from tests.conftest import S3Bucket

COUNTING = "python:tests.batch.counting_scorer:score"


@pytest.fixture(autouse=True)
def _nothing_asked() -> Iterator[None]:
    asked.clear()
    yield
    asked.clear()


def document(row: Row) -> str:
    return f"{row['title']} {row['text']}" if row["title"] else row["text"]


def pairs_of(rows: list[Row]) -> set[tuple[str, str]]:
    return {(row["query"], document(row)) for row in rows}


def the_day_after(rows: list[Row]) -> list[Row]:
    """A text, a title and a query have changed, rows are gone and new, all ids are others and the order is reversed."""
    changed = [dict(row) for row in rows[10:]]
    changed[3]["text"] += " more"
    changed[40]["title"] = "Another title"
    for row in changed:
        if row["query_id"] == "q12":
            row["query"] += " really"
    changed += [{**changed[0], "doc_id": "new", "text": f"a new text {number}"} for number in range(3)]
    return [{**row, "query_id": f"x{row['query_id']}", "doc_id": f"x{row['doc_id']}"} for row in reversed(changed)]


def parts(output: Path) -> dict[str, bytes]:
    """The parts, byte for byte; what they say of themselves is in their footers."""
    return {path.name: path.read_bytes() for path in output.glob("part-*")}


@pytest.mark.parametrize("form", ["one file", "shuffled over files", "nested", "jsonl"])
@pytest.mark.parametrize("bucket_pairs", [2_000_000, 10], ids=["one bucket", "many buckets"])
def test_what_did_not_change_is_not_scored_again(
    tmp_path: Path, rows: list[Row], form: str, bucket_pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reuse, "BUCKET_PAIRS", bucket_pairs)
    today = the_day_after(rows)
    source = FORMS[form](tmp_path / "today", today)
    run_job(FORMS[form](tmp_path / "yesterday", rows), tmp_path / "old", COUNTING, keep_scores=True, top_k=2)
    full = run_job(source, tmp_path / "full", COUNTING, keep_scores=True)
    asked.clear()
    summary = run_job(source, tmp_path / "new", COUNTING, reuse=str(tmp_path / "old"))
    assert set(asked) == pairs_of(today) - pairs_of(rows)
    assert len(asked) == len(set(asked)) > 10
    assert parts(tmp_path / "new") == parts(tmp_path / "full")
    assert full.totals.reused == 0
    assert summary.totals.reused + summary.totals.repeated + len(asked) == summary.totals.scored == len(today)
    assert summary.totals.tokens == full.totals.tokens
    assert not list((tmp_path / "new" / "_rankmill").glob("reuse/**/*.parquet")), "of no use once the job is done"
    assert "pairs with the score that an earlier job gave" in summary.text()


def test_one_night_follows_another(tmp_path: Path, rows: list[Row]) -> None:
    """A job keeps also the scores that it got from another, so that no pair is ever scored twice."""
    source = write_parquet(tmp_path / "in.parquet", rows)
    run_job(source, tmp_path / "0", COUNTING, keep_scores=True)
    for night in (1, 2, 3):
        asked.clear()
        summary = run_job(source, tmp_path / str(night), COUNTING, reuse=str(tmp_path / str(night - 1)))
        assert asked == []
        assert summary.totals.reused == len(rows)
        assert parts(tmp_path / str(night)) == parts(tmp_path / "0")
        assert verify(read(Store(str(tmp_path / str(night)))), deep=True).whole


@pytest.mark.parametrize("settings", [{}, {"max_length": 48, "long_documents": "chunk"}], ids=["whole", "chunks"])
def test_everything_that_a_model_finds_out_comes_back(
    tmp_path: Path, model: Path, rows: list[Row], settings: dict[str, object]
) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows)
    first = run_job(source, tmp_path / "old", model, keep_scores=True, **settings)
    again = run_job(source, tmp_path / "new", model, reuse=str(tmp_path / "old"), **settings)
    assert again.totals.reused == len(rows)
    assert again.totals.truncated == first.totals.truncated
    assert first.totals.truncated or settings, "else there is nothing to lose"
    assert parts(tmp_path / "new") == parts(tmp_path / "old")


def test_the_same_texts_are_scored_once_in_a_shard(tmp_path: Path, rows: list[Row]) -> None:
    mine = [row for row in rows if row["query_id"] == "q5"]
    bad = {**mine[0], "doc_id": "bad", "text": "NAN"}
    copies = [{**row, "query_id": f"c{row['query_id']}", "doc_id": f"c{row['doc_id']}"} for row in (*mine, bad)]
    source = write_parquet(tmp_path / "in.parquet", [*mine, bad, {**bad, "doc_id": "bad 2"}, *copies, rows[-1]])
    settings = {"shard_pairs": 1000, "max_rejected": 3}
    summary = run_job(source, tmp_path / "out", COUNTING, **settings)
    once = [pair for pair in asked if "NAN" not in pair[1].split()]  # asked again after the first answer of NaN
    assert set(once) == pairs_of([*mine, rows[-1]])
    assert asked.count((bad["query"], document(bad))) == 1
    assert summary.totals.repeated == len(mine) + 2
    found = {(row["query_id"], row["doc_id"]): row["score"] for row in read_rankings(tmp_path / "out")}
    assert len(found) == 2 * len(mine) + 1
    assert all(
        found[row["query_id"], row["doc_id"]] == found[f"c{row['query_id']}", f"c{row['doc_id']}"] for row in mine
    )
    rejected = read_rejected(tmp_path / "out").to_pylist()
    assert sorted(row["doc_id"] for row in rejected) == ["bad", "bad 2", "cbad"]
    assert {row["reason"] for row in rejected} == {"non_finite_score"}


def test_a_rejected_pair_is_tried_again(tmp_path: Path, rows: list[Row]) -> None:
    bad = {**rows[0], "doc_id": "bad", "text": "NAN", "title": None}
    source = write_parquet(tmp_path / "in.parquet", [bad, {**bad, "text": None}, *rows])
    run_job(source, tmp_path / "old", COUNTING, keep_scores=True, max_rejected=2)
    asked.clear()
    run_job(source, tmp_path / "new", COUNTING, reuse=str(tmp_path / "old"), max_rejected=2)
    assert asked == [(bad["query"], "NAN")]
    assert read_rejected(tmp_path / "new").equals(read_rejected(tmp_path / "old"))
    assert parts(tmp_path / "new") == parts(tmp_path / "old")


def test_a_continued_job_sorts_nothing_twice_and_need_not_name_the_same_job(tmp_path: Path, rows: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows)
    run_job(source, tmp_path / "old", COUNTING, keep_scores=True)
    new = tmp_path / "new"
    job = batch.prepare(settings_for(source, new, COUNTING, reuse=str(tmp_path / "old")))

    class Dying(InProcess):
        def run_shards(self, *arguments):  # type: ignore[no-untyped-def] # noqa: ANN002, ANN202
            for number, receipt in enumerate(super().run_shards(*arguments)):
                if number == 3:
                    raise ConnectionError("the cluster is gone")
                yield receipt

    with pytest.raises(ConnectionError):
        batch.run(job, Dying())
    sorted_once = {path: path.stat().st_mtime_ns for path in (new / "_rankmill" / "reuse").rglob("*.*")}
    assert len(sorted_once) == 3, "a run, a bucket and the catalogue"

    class Watching(InProcess):
        def run_shards(self, *arguments):  # type: ignore[no-untyped-def] # noqa: ANN002, ANN202
            assert sorted_once == {path: path.stat().st_mtime_ns for path in (new / "_rankmill/reuse").rglob("*.*")}
            yield from super().run_shards(*arguments)

    asked.clear()
    assert batch.run(job, Watching()).totals.reused == len(rows)
    assert asked == []
    for name in ("_SUCCESS", "_rankmill/manifest.json", "_rankmill/commits/000002.json", "part-000002.parquet"):
        (new / name).unlink()
    assert run_job(source, new, COUNTING, keep_scores=True).totals.reused < len(rows), "a shard was scored"
    assert parts(new) == parts(tmp_path / "old")


def test_a_finished_job_does_not_look_for_what_it_reused(tmp_path: Path, rows: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows)
    run_job(source, tmp_path / "old", COUNTING, keep_scores=True)
    run_job(source, tmp_path / "new", COUNTING, reuse=str(tmp_path / "old"))
    (tmp_path / "old").rename(tmp_path / "elsewhere")
    assert run_job(source, tmp_path / "new", COUNTING, reuse=str(tmp_path / "old")).already_complete


def test_what_cannot_be_reused_is_refused_before_anything_is_written(
    tmp_path: Path, model: Path, rows: list[Row]
) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows[:30])
    for name, settings in (("bare", {}), ("unfinished", {"keep_scores": True}), ("short", {"max_length": 48})):
        run_job(source, tmp_path / name, model, **settings)
    (tmp_path / "unfinished" / "_SUCCESS").unlink()
    for name, kind, sentence in (
        ("bare", UsageError, "kept no scores"),
        ("unfinished", UsageError, "not finished"),
        ("short", UsageError, r"another scorer \(.*, fingerprint \w{12}; here \w{12}\)"),
        ("new", UsageError, "--output itself"),
        ("nowhere", InputError, "There is no folder"),
    ):
        if name == "new":
            (tmp_path / "new").mkdir()
        with pytest.raises(kind, match=sentence):
            run_job(source, tmp_path / "new", model, reuse=str(tmp_path / name))
    assert not list((tmp_path / "new").iterdir())


def test_gc_takes_scores_of_attempts_that_lost_and_what_was_sorted(tmp_path: Path, rows: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows)
    run_job(source, tmp_path / "out", COUNTING, keep_scores=True)
    folder = tmp_path / "out" / "_rankmill"
    kept = sorted(folder.joinpath("scores").iterdir())
    rubbish = [folder / "scores" / f"000001-{'0' * 16}.parquet", folder / "reuse" / "0" / "index.json"]
    for path in rubbish:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("left by a killed run")
    assert verify(read(Store(str(tmp_path / "out"))), deep=True).whole
    swept = sweep(read(Store(str(tmp_path / "out"))), lambda: None)
    assert {f"{tmp_path}/out/{key}" for key in swept.files} >= {str(path) for path in rubbish}
    assert sorted(folder.joinpath("scores").iterdir()) == kept


def test_without_the_flag_nothing_is_kept(tmp_path: Path, rows: list[Row]) -> None:
    run_job(write_parquet(tmp_path / "in.parquet", rows), tmp_path / "out", COUNTING)
    assert not (tmp_path / "out" / "_rankmill" / "scores").exists()


def test_a_query_is_found_with_few_reads(tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs of a query lie together in a bucket: looking one query up reads one row group, of many."""
    monkeypatch.setattr(reuse, "_ROW_GROUP", 25)
    source = write_parquet(tmp_path / "in.parquet", rows)
    run_job(source, tmp_path / "old", COUNTING, keep_scores=True)
    job = batch.prepare(settings_for(source, tmp_path / "new", COUNTING, reuse=str(tmp_path / "old")))
    assert job.earlier is not None
    index = reuse.index(job.earlier, job.store, InProcess())
    everything = pq.read_table(index.buckets[0].uri)  # type: ignore[union-attr]
    assert len(everything) == len(pairs_of(rows))
    groups: list[int] = []

    def counting(file: InputFile, parquet: pq.ParquetFile, wanted: list[int]) -> pa.Table:
        groups.extend(wanted)
        return read_groups(file, parquet, wanted)

    monkeypatch.setattr(reuse, "read_groups", counting)
    for row in range(0, len(everything), 17):
        groups.clear()
        one = everything.slice(row, 1)
        assert index(one.select(["query_key", "pair_key"])).equals(one)
        assert 1 <= len(groups) <= 3
    assert index(everything.slice(0, 0).select(["query_key", "pair_key"])).num_rows == 0


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_bucket_to_bucket_on_ray(tmp_path: Path, rows: list[Row], s3: S3Bucket) -> None:
    """Also for a shard of which the model's process loses a row: what rides along is not lost with it."""
    scorer = "python:tests.batch.crashing_scorers:score"
    workers = {"workers": 1, "cpus_per_worker": 1, "max_rejected": 1}
    new = [{**rows[40], "doc_id": "fatal", "text": "RAISE"}, {**rows[40], "doc_id": "new", "text": "new"}]
    old = write_parquet(tmp_path / "old.parquet", rows)
    source = write_parquet(tmp_path / "new.parquet", [*rows[:41], *new, *rows[41:]])
    run_on_ray(old, s3.uri("old"), scorer, keep_scores=True, **workers)
    summary = run_on_ray(source, s3.uri("new"), scorer, reuse=s3.uri("old"), **workers)
    assert summary.totals.reused == len(rows)
    assert summary.totals.rejected == 1
    run_job(write_parquet(tmp_path / "good.parquet", [*rows[:41], new[1], *rows[41:]]), tmp_path / "full", scorer)
    assert read_rankings(s3.uri("new")) == read_rankings(tmp_path / "full")
    assert verify(read(Store(s3.uri("new"))), deep=True).whole
