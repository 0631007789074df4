"""`retry-rejected` ranks again, as a whole, the queries that lost rows to the model; what it writes can stand in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankmill.batch import job as batch
from rankmill.batch.executor import InProcess
from rankmill.batch.recorded import open_output, read
from rankmill.batch.summary import JobSummary
from rankmill.batch.verify import verify
from rankmill.cli.main import main
from rankmill.cli.retry_rejected import choose
from rankmill.errors import InputError, OutputConflictError, UsageError
from rankmill.settings.retry import RetrySettings
from rankmill.settings.storage import StorageSettings
from tests.batch.conftest import FORMS, Row, write_parquet
from tests.batch.jobs import read_rankings, read_rejected, run_job

MODEL = "python:tests.batch.moody_scorer:score"


@pytest.fixture
def moody(rows: list[Row], tmp_path: Path) -> list[Row]:
    """The same rows; one of the texts of q5 and two of q9 get no score until there is a file `mended`."""
    word = f"NAN={tmp_path / 'mended'}"
    changed = {"d5-2", "d9-0", "d9-7"}
    return [{**row, "text": f"{row['text']} {word}"} if row["doc_id"] in changed else row for row in rows]


def retry(finished: Path, output: Path, **settings: Any) -> JobSummary | None:
    """The command in this process; None when there is nothing to do."""
    job, chosen = choose(RetrySettings(finished=str(finished), output=str(output), quiet=True, **settings))
    if not len(chosen):
        return None
    prepared = batch.prepare(job, chosen)
    return batch.already_complete(prepared) or batch.run(prepared, InProcess())


@pytest.mark.parametrize(
    "form", ["one file", "shuffled over files", "jsonl", "nested", "nested, queries split over files"]
)
@pytest.mark.parametrize("settings", [{}, {"top_k": 4, "keep": "lang", "shape": "nested"}], ids=["pairs", "nested"])
def test_the_queries_are_ranked_as_if_nothing_had_happened(
    tmp_path: Path, moody: list[Row], form: str, settings: dict[str, Any]
) -> None:
    source = FORMS[form](tmp_path / "in", moody)
    run_job(source, tmp_path / "out", MODEL, max_rejected=3, **settings)
    assert set(read_rejected(tmp_path / "out").column("doc_id").to_pylist()) == {"d5-2", "d9-0", "d9-7"}
    (tmp_path / "mended").touch()
    summary = retry(tmp_path / "out", tmp_path / "new")
    assert summary is not None
    assert (summary.totals.queries, summary.totals.pairs_in, summary.totals.rejected) == (2, 11 + 19, 0)
    run_job(source, tmp_path / "undisturbed", MODEL, **settings)
    whole = [row for row in read_rankings(tmp_path / "undisturbed") if row["query_id"] in {"q5", "q9"}]
    key: Callable[[Row], Any] = lambda row: (row["query_id"], row.get("rank", 0))  # noqa: E731
    assert sorted(read_rankings(tmp_path / "new"), key=key) == sorted(whole, key=key)
    assert verify(read(open_output(str(tmp_path / "new"), StorageSettings())), deep=True).whole


def test_the_same_command_finds_itself_done_and_another_is_refused(tmp_path: Path, moody: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", moody)
    run_job(source, tmp_path / "out", MODEL, max_rejected=3)
    first = retry(tmp_path / "out", tmp_path / "new")
    assert first is not None
    assert first.totals.rejected == 3, "nothing was mended: they are rejected again"
    again = retry(tmp_path / "out", tmp_path / "new")
    assert again is not None
    assert again.already_complete
    with pytest.raises(OutputConflictError, match="retry_of"):
        run_job(source, tmp_path / "new", MODEL, shard_pairs=None)
    (tmp_path / "mended").touch()
    third = retry(tmp_path / "new", tmp_path / "newer")  # a retry can be retried: it knows the rows of the first input
    assert third is not None
    assert (third.totals.queries, third.totals.rejected) == (2, 0)


def test_scores_that_were_kept_are_used_and_kept_again(tmp_path: Path, moody: list[Row]) -> None:
    """Only the rows that were rejected are scored, unless another precision is asked for."""
    source = write_parquet(tmp_path / "in.parquet", moody)
    run_job(source, tmp_path / "out", MODEL, max_rejected=3, keep_scores=True)
    (tmp_path / "mended").touch()
    summary = retry(tmp_path / "out", tmp_path / "new")
    assert summary is not None
    assert (summary.totals.scored, summary.totals.reused) == (11 + 19, 11 + 19 - 3)
    run_job(source, tmp_path / "undisturbed", MODEL)
    whole = [row for row in read_rankings(tmp_path / "undisturbed") if row["query_id"] in {"q5", "q9"}]
    assert read_rankings(tmp_path / "new") == whole
    again = run_job(source, tmp_path / "again", MODEL, reuse=str(tmp_path / "new"))
    assert again.totals.reused == 11 + 19
    job, _ = choose(RetrySettings(finished=str(tmp_path / "out"), output="x", precision="bfloat16"))
    assert (job.keep_scores, job.reuse) == (True, None)


def test_reasons_are_chosen(tmp_path: Path, moody: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", [{**moody[0], "text": None}, *moody])
    run_job(source, tmp_path / "out", MODEL, max_rejected=4)
    assert retry(tmp_path / "out", tmp_path / "none", reason="out_of_memory") is None
    assert not (tmp_path / "none").exists()
    summary = retry(tmp_path / "out", tmp_path / "new", reason="null_text")
    assert summary is not None
    assert (summary.totals.queries, summary.totals.pairs_in, summary.totals.rejected) == (1, 2, 1)
    with pytest.raises(UsageError, match="--reason nulltext is none; rows are rejected for"):
        retry(tmp_path / "out", tmp_path / "new", reason="nulltext")


def test_a_changed_input_is_refused(tmp_path: Path, moody: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", moody)
    run_job(source, tmp_path / "out", MODEL, max_rejected=3)
    write_parquet(source, moody[1:])
    with pytest.raises(InputError, match=r"in\.parquet has changed"):
        retry(tmp_path / "out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_unfinished_job_is_refused(tmp_path: Path, moody: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", moody)
    run_job(source, tmp_path / "out", MODEL, max_rejected=3)
    (tmp_path / "out" / "_SUCCESS").unlink()
    with pytest.raises(UsageError, match="is not finished"):
        retry(tmp_path / "out", tmp_path / "new")


def test_the_command_says_when_there_is_nothing_to_do(
    tmp_path: Path, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows)
    run_job(source, tmp_path / "out", MODEL)
    assert main(["retry-rejected", str(tmp_path / "out"), "--output", str(tmp_path / "new")]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("local_ray")
def test_on_ray_by_the_command(tmp_path: Path, moody: list[Row], capsys: pytest.CaptureFixture[str]) -> None:
    source = write_parquet(tmp_path / "in.parquet", moody)
    run_job(source, tmp_path / "out", MODEL, max_rejected=3)
    (tmp_path / "mended").touch()
    command = ["retry-rejected", str(tmp_path / "out"), "--output", str(tmp_path / "new"), "--workers", "1"]
    assert main([*command, "--cpus-per-worker", "1"]) == 0
    assert "30 pairs scored" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "new"), "--deep"]) == 0
