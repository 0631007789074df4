"""The same command continues; another one is refused."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from rankmill.batch import job as batch
from rankmill.batch import planning
from rankmill.batch.executor import InProcess
from rankmill.batch.receipts import Receipt
from rankmill.batch.stages import Encode, Write
from rankmill.cli.main import main
from rankmill.errors import InputError, OutputConflictError, StorageError, TooManyRejectedError
from rankmill.scoring.options import ScorerOptions
from tests.batch.conftest import Row, write_parquet
from tests.batch.jobs import read_rankings, run_job, run_on_ray, settings_for


def stamps(output: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in output.glob("part-*")}


def test_a_finished_job_is_left_alone(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows)
    first = run_job(source, tmp_path / "out", model)
    before = stamps(tmp_path / "out")
    again = run_job(source, tmp_path / "out", model)
    assert again.already_complete
    assert again.totals == first.totals
    assert stamps(tmp_path / "out") == before


def test_a_finished_job_that_lost_a_record_is_not_taken_for_whole(
    tmp_path: Path, model: Path, rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    """No TREC run and no table is made of what is left; what the error says brings the rest back."""
    source, out = write_parquet(tmp_path / "in.parquet", rows), tmp_path / "out"
    run_job(source, out, model)
    record = out / "_rankmill" / "commits" / "000002.json"
    for spoil in (record.unlink, lambda: record.write_bytes(b"{}")):
        spoil()
        with pytest.raises(StorageError) as refused:
            run_job(source, out, model, trec_run=str(tmp_path / "run.trec"), publish="delta")
        assert not (tmp_path / "run.trec").exists()
        assert not (out / "_delta_log").exists()
        message = str(refused.value)
        if record.exists():
            assert f"{record} is no commit record of this release" in message
            record.unlink()
        else:
            assert f"`rankmill verify {out}`" in message
            assert "shards: 9 by _SUCCESS, 8 by the commit records" in message
        assert "_SUCCESS and _rankmill/manifest.json" in message
        (out / "_SUCCESS").unlink()
        (out / "_rankmill" / "manifest.json").unlink()
        run_job(source, out, model)
        assert main(["verify", str(out), "--deep"]) == 0
        capsys.readouterr()


def test_a_job_whose_files_are_gone_or_cut_short_gets_no_success(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    source, out = write_parquet(tmp_path / "in.parquet", rows), tmp_path / "out"
    run_job(source, out, model)
    for name in ("_SUCCESS", "_rankmill/manifest.json", "part-000001.parquet"):
        (out / name).unlink()
    (out / "part-000003.parquet").write_bytes(b"cut short")
    with pytest.raises(StorageError) as refused:
        run_job(source, out, model)
    assert "part-000001.parquet, of shard 1: " in str(refused.value)
    assert "it is gone" in str(refused.value)
    assert "part-000003.parquet, of shard 3: " in str(refused.value)
    assert "9 are there" in str(refused.value)
    assert not (out / "_SUCCESS").exists()
    assert not (out / "_rankmill" / "manifest.json").exists()
    (out / "part-000003.parquet").unlink()
    for name in ("000001.json", "000003.json"):
        (out / "_rankmill" / "commits" / name).unlink()
    run_job(source, out, model)
    assert main(["verify", str(out), "--deep"]) == 0


def test_what_is_missing_is_done_and_nothing_else(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows)
    run_job(source, tmp_path / "out", model)
    before, rankings = stamps(tmp_path / "out"), read_rankings(tmp_path / "out")
    for name in ("_SUCCESS", "_rankmill/manifest.json", "part-000004.parquet"):
        (tmp_path / "out" / name).unlink()
    for name in ("000002.json", "000004.json"):
        (tmp_path / "out" / "_rankmill" / "commits" / name).unlink()
    summary = run_job(source, tmp_path / "out", model)
    after = stamps(tmp_path / "out")
    assert {name for name in after if before[name] != after[name]} == {"part-000004.parquet"}
    assert read_rankings(tmp_path / "out") == rankings
    assert 0 < summary.run_pairs < summary.totals.pairs_in == len(rows)


def test_scattered_queries_are_gathered_again(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows[1::2] + rows[::2])
    run_job(source, tmp_path / "out", model)
    assert not list((tmp_path / "out" / "_rankmill").glob("gathered/*")), "copies of the input are deleted at the end"
    rankings = read_rankings(tmp_path / "out")
    for name in ("_SUCCESS", "_rankmill/manifest.json", "_rankmill/commits/000001.json", "part-000001.parquet"):
        (tmp_path / "out" / name).unlink()
    run_job(source, tmp_path / "out", model)
    assert read_rankings(tmp_path / "out") == rankings


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"top_k": 3}, "top_k: None there, 3 here"),
        ({"activation": "raw"}, "activation: 'model' there, 'raw' here"),
        ({"max_length": 64}, "model: other weights, tokenizer, precision or truncation"),
    ],
)
def test_another_job_is_refused(
    tmp_path: Path, model: Path, rows: list[Row], change: dict[str, object], named: str
) -> None:
    """F12."""
    source = write_parquet(tmp_path / "in.parquet", rows)
    run_job(source, tmp_path / "out", model)
    with pytest.raises(OutputConflictError) as refusal:
        run_job(source, tmp_path / "out", model, **change)
    assert named in str(refusal.value)


def test_another_input_is_refused(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    """F13: before the job continues."""
    source = write_parquet(tmp_path / "in" / "a.parquet", rows)
    run_job(source.parent, tmp_path / "out", model)
    write_parquet(tmp_path / "in" / "b.parquet", rows[:5])
    write_parquet(source, rows[:-1])
    with pytest.raises(OutputConflictError) as refusal:
        run_job(source.parent, tmp_path / "out", model)
    assert f"input {source} has changed" in str(refusal.value)
    assert "b.parquet was not part of it" in str(refusal.value)


@pytest.mark.usefixtures("reader")
def test_a_file_replaced_while_the_job_runs_is_noticed(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    """F13: while it runs."""
    source = write_parquet(tmp_path / "in.parquet", rows)
    job = batch.prepare(settings_for(source, tmp_path / "out", model))

    class Meddling(InProcess):
        def run_shards(self, encode: Encode, scorer: ScorerOptions, write: Write) -> Generator[Receipt]:
            write_parquet(source, rows[: len(rows) // 2])
            return InProcess().run_shards(encode, scorer, write)

    with pytest.raises(InputError, match="The input changed while the job ran"):
        batch.run(job, Meddling())


@pytest.mark.usefixtures("reader")
def test_a_file_replaced_by_one_of_as_many_rows_is_noticed_too(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    files = [write_parquet(tmp_path / "in" / f"{name}.parquet", rows) for name in "ab"]
    job = batch.prepare(settings_for(tmp_path / "in", tmp_path / "out", model))

    class Meddling(InProcess):
        def run_shards(self, encode: Encode, scorer: ScorerOptions, write: Write) -> Generator[Receipt]:
            yield from InProcess().run_shards(encode, scorer, write)
            write_parquet(files[0], [{**row, "text": row["text"].swapcase()} for row in rows])
            write_parquet(tmp_path / "in" / "new.parquet", rows)  # of no concern: it was not read

    with pytest.raises(InputError) as refusal:
        batch.run(job, Meddling())
    assert "The input changed while the job ran" in str(refusal.value)
    assert refusal.value.args[1] == (f"{files[0]} was replaced",)
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_another_release_that_cuts_other_shards_goes_by_the_plan_that_is_there(
    tmp_path: Path, model: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows)
    run_job(source, tmp_path / "out", model, shard_pairs=None)
    (tmp_path / "out" / "_SUCCESS").unlink()
    recorded = orjson.loads((tmp_path / "out" / "_rankmill" / "job.json").read_bytes())
    assert recorded["plan"]["shard_pairs"] == 256
    monkeypatch.setattr(planning, "default_shard_pairs", lambda _pairs, _bytes: 20)
    run_job(source, tmp_path / "out", model, shard_pairs=None)
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_where_rows_are_gathered_such_a_release_is_refused(
    tmp_path: Path, model: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan there says how many places a shard has, not which."""
    source = write_parquet(tmp_path / "in.parquet", rows[1::2] + rows[::2])
    run_job(source, tmp_path / "out", model, shard_pairs=None)
    (tmp_path / "out" / "_SUCCESS").unlink()
    monkeypatch.setattr(planning, "default_shard_pairs", lambda _pairs, _bytes: 20)
    with pytest.raises(OutputConflictError, match=r"shards: rankmill \S+, which began it, cut the input otherwise"):
        run_job(source, tmp_path / "out", model, shard_pairs=None)


def test_an_error_closes_the_stream_of_work(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", [{**rows[0], "text": None}, *rows])
    job = batch.prepare(settings_for(source, tmp_path / "out", model, max_rejected=0))
    ends: list[str] = []

    class Watched(InProcess):
        def run_shards(self, encode: Encode, scorer: ScorerOptions, write: Write) -> Generator[Receipt]:
            try:
                yield from InProcess().run_shards(encode, scorer, write)
            finally:
                ends.append("closed")

    with pytest.raises(TooManyRejectedError) as stopped:
        batch.run(job, Watched())
    assert ends == ["closed"], stopped  # while the error, whose traceback holds the stream, is still there


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_an_error_gives_the_workers_back_on_ray(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    import ray  # noqa: PLC0415 - of the tests here only this one needs it

    source = write_parquet(tmp_path / "in.parquet", [{**rows[0], "text": None}, *rows])
    with pytest.raises(TooManyRejectedError) as stopped:
        run_on_ray(source, tmp_path / "out", model, max_rejected=0, shard_pairs=1, workers=1, cpus_per_worker=1)
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:  # type: ignore[no-untyped-call]
        assert time.monotonic() < deadline, stopped
        time.sleep(0.1)


def test_half_written_files_of_a_killed_job_are_swept(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows)
    staging = tmp_path / "out" / "_rankmill" / "staging"
    staging.mkdir(parents=True)  # killed before it had written its record
    (staging / "0a1b").write_bytes(b"PAR1 half of a par")
    run_job(source, tmp_path / "out", model)
    assert not list(staging.iterdir())
    assert len(read_rankings(tmp_path / "out")) == len(rows)


def test_what_was_gathered_from_another_input_is_not_used(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    """The input is replaced after the plan, by one of the same size; the job dies; the old file is put back."""
    scattered = rows[1::2] + rows[::2]
    source = write_parquet(tmp_path / "in.parquet", scattered)
    body, times = source.read_bytes(), source.stat()

    gathered = tmp_path / "out" / "_rankmill" / "gathered"

    class Meddling(InProcess):
        def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
            write_parquet(source, [{**row, "text": f"other {row['text']}"} for row in scattered])
            os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))  # else it is noticed when it is opened
            yield from super().map(function, items)
            if list(gathered.glob("*")):
                raise ConnectionError("the cluster is gone")

    job = batch.prepare(settings_for(source, tmp_path / "out", model))
    with pytest.raises(ConnectionError):
        batch.run(job, Meddling())
    source.write_bytes(body)
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    run_job(source, tmp_path / "out", model)
    run_job(source, tmp_path / "undisturbed", model)
    assert read_rankings(tmp_path / "out") == read_rankings(tmp_path / "undisturbed")
