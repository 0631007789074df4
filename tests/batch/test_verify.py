"""`verify` finds whatever was changed after it was written, and names it."""

import hashlib
import re
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.batch import job as batch
from rankmill.batch import verify_part
from rankmill.batch.executor import InProcess, receipts
from rankmill.batch.freight import ScoredShard
from rankmill.batch.receipts import Receipt
from rankmill.batch.recorded import open_output, read
from rankmill.batch.stages import Encode, Score, Write
from rankmill.batch.verify import Verified, verify
from rankmill.errors import InputError
from rankmill.scoring.options import ScorerOptions
from rankmill.settings.storage import StorageSettings
from tests.batch.conftest import Row, write_parquet
from tests.batch.jobs import run_job, settings_for
from tests.conftest import S3Bucket


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> Path:
    """Nine shards; a row of the first has no text."""
    return write_parquet(tmp_path_factory.mktemp("in") / "in.parquet", [{**rows[0], "text": None}, *rows])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, source: Path, model: Path) -> Path:
    output = tmp_path_factory.mktemp("finished") / "out"
    run_job(source, output, model, max_rejected=1)
    return output


@pytest.fixture
def output(tmp_path: Path, finished: Path) -> Path:
    """A copy to damage."""
    for path in finished.rglob("*"):
        if path.is_file():
            target = tmp_path / "out" / path.relative_to(finished)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return tmp_path / "out"


def look(output: Path | str, *, deep: bool = False) -> Verified:
    return verify(read(open_output(str(output), StorageSettings())), deep=deep)


def flip(path: Path, at: int) -> None:
    body = bytearray(path.read_bytes())
    body[at] ^= 0x10
    path.write_bytes(bytes(body))


@pytest.mark.parametrize("settings", [{}, {"top_k": 3}, {"shape": "nested"}, {"shape": "nested", "top_k": 2}], ids=str)
def test_an_untouched_output_is_whole(
    tmp_path: Path, source: Path, model: Path, rows: list[Row], settings: dict[str, Any]
) -> None:
    run_job(source, tmp_path / "out", model, max_rejected=1, **settings)
    assert look(tmp_path / "out").whole
    found = look(tmp_path / "out", deep=True)
    assert found.problems == ()
    assert found.whole
    assert (found.totals.pairs_in, found.totals.rejected) == (len(rows) + 1, 1)


def test_on_s3_too(s3: S3Bucket, source: Path, model: Path) -> None:
    run_job(source, s3.uri("out"), model, max_rejected=1)
    assert look(s3.uri("out")).whole
    assert look(s3.uri("out"), deep=True).whole


def test_every_flipped_byte_of_a_part_is_found_by_deep(output: Path) -> None:
    """F8: in the output."""
    part = output / "part-000001.parquet"
    body = part.read_bytes()
    for at in range(0, len(body), max(1, len(body) // 40)):
        part.write_bytes(body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :])
        found = look(output, deep=True)
        assert {problem.file for problem in found.problems} == {"part-000001.parquet"}, at
        assert not found.whole


def test_a_flipped_byte_of_a_footer_is_found_without_deep(output: Path) -> None:
    flip(output / "part-000002.parquet", -40)
    found = look(output)
    assert [problem.file for problem in found.problems] == ["part-000002.parquet"]
    assert "a footer of sha256" in str(found.problems[0])
    flip(output / "part-000002.parquet", -40)
    assert look(output).whole


def test_a_long_footer_is_fetched_in_two_reads(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_part, "_END_BYTES", 100)
    assert look(output).whole
    flip(output / "part-000002.parquet", -200)
    assert [problem.file for problem in look(output).problems] == ["part-000002.parquet"]


def remove_part(output: Path) -> None:
    (output / "part-000003.parquet").unlink()


def add_part(output: Path) -> None:
    (output / "part-000099.parquet").write_bytes((output / "part-000000.parquet").read_bytes())


def add_in_a_folder(output: Path) -> None:
    (output / "more").mkdir()
    (output / "more" / "x.parquet").write_bytes(b"PAR1")


def lose_a_row(output: Path) -> None:
    part = output / "part-000002.parquet"
    table = pq.read_table(part)
    pq.write_table(table.slice(0, len(table) - 1), part, compression="zstd", write_page_checksum=True)


def cut_a_record(output: Path) -> None:
    record = output / "_rankmill" / "commits" / "000004.json"
    record.write_bytes(record.read_bytes()[:100])


def lose_a_record(output: Path) -> None:
    (output / "_rankmill" / "commits" / "000005.json").unlink()


def copy_a_record(output: Path) -> None:
    commits = output / "_rankmill" / "commits"
    (commits / "000077.json").write_bytes((commits / "000001.json").read_bytes())


def lie_in_a_record(output: Path) -> None:
    record = output / "_rankmill" / "commits" / "000001.json"
    values = orjson.loads(record.read_bytes())
    record.write_bytes(orjson.dumps(values | {"pairs_in": values["pairs_in"] + 1}))


def lose_the_manifest(output: Path) -> None:
    (output / "_rankmill" / "manifest.json").unlink()


def edit_the_manifest(output: Path) -> None:
    path = output / "_rankmill" / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"part-000003.parquet"', b'"part-000333.parquet"'))


def edit_the_marker(output: Path) -> None:
    path = output / "_SUCCESS"
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | {"rows_out": 1}))


def edit_the_job(output: Path) -> None:
    path = output / "_rankmill" / "job.json"
    path.write_bytes(path.read_bytes().replace(b'"activation": "model"', b'"activation": "raw"'))


def lose_rejected_rows(output: Path) -> None:
    next((output / "_rejected").iterdir()).unlink()


def add_rejected_rows(output: Path) -> None:
    (output / "_rejected" / "part-000001-0123456789abcdef.parquet").write_bytes(b"PAR1")


def lose_the_plan(output: Path) -> None:
    (output / "_rankmill" / "plan.parquet").unlink()


def cut_the_plan(output: Path) -> None:
    path = output / "_rankmill" / "plan.parquet"
    path.write_bytes(path.read_bytes()[:100])


def edit_the_plan(output: Path) -> None:
    path = output / "_rankmill" / "plan.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, len(table) - 1), path)


def lie_about_a_shard(output: Path) -> None:
    """A row more was read and rejected than the plan has for the shard."""
    record = output / "_rankmill" / "commits" / "000001.json"
    values = orjson.loads(record.read_bytes())
    record.write_bytes(orjson.dumps(values | {"pairs_in": values["pairs_in"] + 1, "rejected": 1}))


DAMAGE: dict[Callable[[Path], None], str] = {
    remove_part: r"part-000003.parquet: expected \d+ bytes; found no such file",
    add_part: r"part-000099.parquet: expected no such file: no commit record names it; found \d+ bytes",
    add_in_a_folder: r"more/x.parquet: expected no such file",
    lose_a_row: r"part-000002.parquet: expected \d+ bytes; found \d+ bytes",
    cut_a_record: r"_rankmill/commits/000004.json: expected a commit record; found 100 bytes",
    lose_a_record: r"_rankmill/commits/000005.json: expected a commit record; found none",
    copy_a_record: r"_rankmill/commits/000077.json: expected the record of the shard that it is named after; found sh",
    lie_in_a_record: r"_rankmill/commits/000001.json: expected the 21 pairs that were read; found 20 ranked",
    lose_the_manifest: r"_rankmill/manifest.json: expected a manifest; found none",
    edit_the_manifest: r"_rankmill/manifest.json: expected sha256 \w+, by _SUCCESS; found \w+",
    edit_the_marker: r"_SUCCESS: expected rows_out 169; found 1",
    edit_the_job: r"_rankmill/job.json: expected fingerprint \w+, by its content; found \w+",
    lose_rejected_rows: r"_rejected/part-000000-\w+.parquet: expected \d+ bytes; found no such file",
    lose_the_plan: r"_rankmill/plan.parquet: expected a plan; found none",
    cut_the_plan: r"_rankmill/plan.parquet: expected a plan; found 100 bytes that are none",
    edit_the_plan: r"_rankmill/plan.parquet: expected rows of sha256 \w+, by _rankmill/job.json; found \w+",
    lie_about_a_shard: r"_rankmill/commits/000001.json: expected the 20 pairs of the plan; found 21 pairs",
    add_rejected_rows: r"_rejected/part-000001-0123456789abcdef.parquet: expected no such file",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_is_named(output: Path, damage: Callable[[Path], None]) -> None:
    damage(output)
    found = look(output)
    assert not found.whole
    said = [str(problem) for problem in found.problems]
    assert any(re.match(DAMAGE[damage], line) for line in said), said


@pytest.mark.parametrize("damage", [cut_a_record, lose_a_record], ids=lambda damage: damage.__name__)
def test_one_lost_record_is_one_problem(output: Path, damage: Callable[[Path], None]) -> None:
    """Though what it said is missing from every sum, and nothing names its part any more."""
    damage(output)
    (problem,) = look(output).problems
    assert re.match(DAMAGE[damage], str(problem))
    edit_the_marker(output)  # of which only what no record decides is still compared
    path = output / "_SUCCESS"
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | {"job": "another"}))
    assert [problem.file for problem in look(output).problems] == ["_SUCCESS", problem.file]


def rewrite(output: Path, shard: int, table: pa.Table) -> None:
    """Change a part and forge its size and hash in its record, as no accident would."""
    part = output / f"part-{shard:06}.parquet"
    pq.write_table(table, part, compression="zstd", write_page_checksum=True)
    body = part.read_bytes()
    record = output / "_rankmill" / "commits" / f"{shard:06}.json"
    forged = {"part_bytes": len(body), "part_sha256": hashlib.sha256(body).hexdigest()}
    record.write_bytes(orjson.dumps(orjson.loads(record.read_bytes()) | forged))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.take(list(reversed(range(len(t))))), "rank 1 in row 0"),
        (lambda t: t.set_column(1, "doc_id", pa.array(["same"] * len(t))), "0 of those in the input"),
        (lambda t: t.set_column(4, "logit", pa.array([float("nan")] * len(t), pa.float32())), "finite logits"),
    ],
)
def test_deep_reads_ranks_ids_and_logits(output: Path, change: Callable[[pa.Table], pa.Table], said: str) -> None:
    rewrite(output, 2, change(pq.read_table(output / "part-000002.parquet")))
    assert any(said in str(problem) for problem in look(output, deep=True).problems)
    assert not any(said in str(problem) for problem in look(output).problems)


def test_a_query_in_two_parts_is_found_by_deep(output: Path) -> None:
    rewrite(output, 3, pq.read_table(output / "part-000002.parquet"))
    said = [str(problem) for problem in look(output, deep=True).problems]
    assert "part-000003.parquet: expected queries of its own; found queries that part-000002.parquet ranks too" in said


class Killed(InProcess):
    """Ends after some shards, as a driver does that is killed."""

    def run_shards(self, encode: Encode, scorer: ScorerOptions, write: Write) -> Generator[Receipt]:
        for number, receipt in enumerate(InProcess().run_shards(encode, scorer, write)):
            yield receipt
            if number == 2:
                raise ConnectionError("killed")


def test_a_killed_job_is_incomplete_and_its_damage_is_named(tmp_path: Path, source: Path, model: Path) -> None:
    job = batch.prepare(settings_for(source, tmp_path / "out", model, max_rejected=1))
    with pytest.raises(ConnectionError):
        batch.run(job, Killed())
    found = look(tmp_path / "out", deep=True)
    assert (found.complete, found.whole, found.problems) == (False, False, ())
    assert (found.totals.shards, found.shards) == (3, 9)
    half_done = tmp_path / "out" / "part-000005.parquet"  # written, and the worker died before its commit record
    half_done.write_bytes((tmp_path / "out" / "part-000001.parquet").read_bytes())
    assert look(tmp_path / "out").problems == ()
    half_done.unlink()
    flip(tmp_path / "out" / "part-000001.parquet", 60)
    assert [problem.file for problem in look(tmp_path / "out", deep=True).problems] == ["part-000001.parquet"]


def test_another_attempt_adopts_the_part_with_its_rejected_rows(tmp_path: Path, source: Path, model: Path) -> None:
    """F11: the first attempt died between its part and its commit record; the second one has no row to reject."""

    class TwoAttempts(InProcess):
        def run_shards(self, encode: Encode, scorer: ScorerOptions, write: Write) -> Generator[Receipt]:
            score = Score(scorer, write.options.fingerprint)
            for row in encode(pa.table({"unit": [0]})):
                shard = ScoredShard.from_row(score(row))
                write(shard.to_row())
                (tmp_path / "out" / "_rankmill" / "commits" / f"{shard.index:06}.json").unlink()
                yield from receipts(write(replace(shard, rejected=shard.rejected.slice(0, 0)).to_row()).to_pylist())
            yield from InProcess().run_shards(replace(encode, units=encode.units[1:]), scorer, write)

    summary = batch.run(batch.prepare(settings_for(source, tmp_path / "out", model, max_rejected=1)), TwoAttempts())
    assert summary.totals.rejected == 1
    assert look(tmp_path / "out", deep=True).whole


def test_what_is_no_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no folder"):
        look(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(InputError, match="holds no job"):
        look(tmp_path)
    (tmp_path / "_rankmill").mkdir()
    (tmp_path / "_rankmill" / "job.json").write_bytes(b'{"plan": {')
    with pytest.raises(InputError, match=r"job\.json is damaged"):
        look(tmp_path)
    (tmp_path / "_rankmill" / "job.json").write_bytes(b'{"plan": null}')
    with pytest.raises(InputError, match="it has no settings, inputs"):
        look(tmp_path)
