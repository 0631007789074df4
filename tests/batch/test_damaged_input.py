"""Input that is damaged, or replaced meanwhile: noticed where there are checksums, and no row is made up."""

import io
from collections.abc import Generator
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.batch import job as batch
from rankmill.batch.executor import InProcess
from rankmill.batch.plan import ReadUnit
from rankmill.batch.planning import cut
from rankmill.batch.read import Source, read_shards
from rankmill.batch.receipts import Receipt
from rankmill.batch.stages import Encode, Write
from rankmill.cli.main import main
from rankmill.errors import DamagedInputError, InputError
from rankmill.scoring.options import ScorerOptions
from tests.batch.conftest import Row, nested, write_jsonl, write_parquet
from tests.batch.jobs import read_rankings, read_rejected, run_job, settings_for
from tests.batch.test_hostile_input import ALL, some


def test_input_without_checksums_is_reported_as_unverified(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the summary, by that of a job that was complete already, and by `verify`."""
    folder = tmp_path / "in"
    for number, name in enumerate(["a.parquet", "b.parquet", "c.jsonl", "d.jsonl.gz"]):
        write = write_parquet if name.endswith(".parquet") else write_jsonl
        write(folder / name, some(query=f"q{number}"))
    pq.write_table(pq.read_table(folder / "b.parquet"), folder / "b.parquet", write_page_checksum=True)
    for _ in range(2):
        done = run_job(folder, tmp_path / "out", model)
        assert done.unverified_inputs == orjson.loads(done.to_json())["unverified_inputs"] == 2
        assert "2 input files without checksums: " in done.text()
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert "2 input files without checksums: " in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "out"), "--json"]) == 0
    assert orjson.loads(capsys.readouterr().out)["unverified_inputs"] == 2
    for name in ("a.parquet", "c.jsonl"):
        (folder / name).unlink()
    assert "without checksums" not in run_job(folder, tmp_path / "checked", model).text()
    assert main(["verify", str(tmp_path / "checked")]) == 0
    assert "without checksums" not in capsys.readouterr().out


def test_texts_of_a_run_without_checksums_are_unverified_too(tmp_path: Path, model: Path) -> None:
    (tmp_path / "run.trec").write_text("q Q0 d 1 2.5 x\n")
    queries = write_jsonl(tmp_path / "queries.jsonl.gz", [{"_id": "q", "text": "fox"}])
    corpus = write_parquet(tmp_path / "corpus.parquet", [{"doc_id": "d", "text": "dog"}])
    texts = {"queries": str(queries), "corpus": str(corpus)}
    assert run_job(tmp_path / "run.trec", tmp_path / "out", model, **texts).unverified_inputs == 2


def damaged(path: Path, needle: bytes) -> Path:
    """Turn a byte in a file, where nothing but a page's checksum notices."""
    body = bytearray(path.read_bytes())
    body[body.index(needle)] ^= 1
    path.write_bytes(body)
    return path


def half_damaged(path: Path, rows: list[Row]) -> Path:
    """Two row groups; the texts of the second are damaged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    size = -(-len(rows) // 2)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=size, write_page_checksum=True, **options)
    return damaged(path, b"last words")


@pytest.mark.parametrize("form", ["pairs", "nested"])
def test_damaged_pages_end_the_job_or_are_rejected(form: str, tmp_path: Path, model: Path) -> None:
    """F8: in the input."""
    rows = [*some(4, "a"), *some(4, "b")]
    rows[-1]["text"] = "last words"
    source = half_damaged(tmp_path / "in.parquet", rows if form == "pairs" else nested(rows))
    with pytest.raises(DamagedInputError, match=r"in\.parquet cannot be read"):
        run_job(source, tmp_path / "refused", model)
    assert not (tmp_path / "refused" / "_SUCCESS").exists()
    done = run_job(source, tmp_path / "out", model, bad_files="reject", max_rejected=ALL)
    assert (done.totals.pairs_in, done.totals.rejected, done.totals.rows_out) == (8, 4, 4)
    assert {row["query_id"] for row in read_rankings(tmp_path / "out")} == {"a"}
    rejected = read_rejected(tmp_path / "out")
    assert set(rejected["reason"].to_pylist()) == {"damaged_rows"}
    assert rejected["row"].to_pylist() == ([4, 5, 6, 7] if form == "pairs" else [1, 1, 1, 1])
    assert main(["verify", str(tmp_path / "out"), "--deep"]) == 0


def test_a_flipped_byte_in_a_page_header_is_damage_too(tmp_path: Path, model: Path) -> None:
    """Of the texts' only page; the ids, which the plan reads, are as they were."""
    path = write_parquet(tmp_path / "in.parquet", some(4))
    chunk = pq.read_metadata(path).row_group(0).column(3)
    body = bytearray(path.read_bytes())
    body[chunk.dictionary_page_offset] ^= 0xFF
    path.write_bytes(body)
    with pytest.raises(DamagedInputError, match=r"in\.parquet cannot be read"):
        run_job(path, tmp_path / "refused", model)
    done = run_job(path, tmp_path / "out", model, bad_files="reject", max_rejected=ALL)
    assert (done.totals.rejected, done.totals.rows_out) == (4, 0)
    assert set(read_rejected(tmp_path / "out")["reason"].to_pylist()) == {"damaged_rows"}


@pytest.mark.parametrize(("column", "rejected"), [("query_id", {0}), ("text", {8, 9, 10, 11})])
def test_a_page_that_its_header_hides_loses_no_row(
    column: str, rejected: set[int], tmp_path: Path, model: Path
) -> None:
    """One bit makes it a page of a kind that nobody knows, which Arrow skips; no checksum covers it."""
    rows = [row for query in "abc" for row in some(4, query)]
    path = tmp_path / "in.parquet"
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, path, row_group_size=4, use_dictionary=False, write_page_checksum=True)
    chunk = pq.read_metadata(path).row_group(2).column(table.column_names.index(column))
    body = bytearray(path.read_bytes())
    body[chunk.data_page_offset + 1] ^= 2
    path.write_bytes(body)
    with pytest.raises(InputError, match=r"in\.parquet cannot be read"):
        run_job(path, tmp_path / "refused", model)
    write_parquet(tmp_path / "good.parquet", some(4, "z"))
    settings = {"shard_pairs": 4, "bad_files": "reject", "max_rejected": ALL}
    done = run_job(tmp_path / "*.parquet", tmp_path / "out", model, **settings)
    assert done.totals.rejected == len(rejected)
    assert set(read_rejected(tmp_path / "out")["row"].to_pylist()) == rejected
    kept = {"z"} if column == "query_id" else {"a", "b", "z"}
    ranked = [row["query_id"] for row in read_rankings(tmp_path / "out")]
    assert sorted(ranked) == [query for query in sorted(kept) for _ in range(4)]


class Flaky(io.FileIO):
    """A file that a network damages the first few times that it is opened."""

    damaged = opened = 0

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        Flaky.opened += 1
        self._spoilt = Flaky.opened <= Flaky.damaged

    def read(self, size: int | None = -1) -> bytes:
        body = super().read(size)
        return body.replace(b"dog 7 ", b"dig 7 ") if self._spoilt else body


@pytest.mark.parametrize(("times", "finished"), [(2, True), (3, False)])
def test_what_the_network_damages_is_read_again(
    *, times: int, finished: bool, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice; who gets damage three times in a row holds the file for damaged."""
    rows = [{**row, "text": f"dog {n} " * 50} for n, row in enumerate(some(60))]
    source = tmp_path / "in.parquet"
    options = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
    pq.write_table(pa.Table.from_pylist(rows), source, **options)
    job = batch.prepare(settings_for(source, tmp_path / "out", model))
    plan, _ = cut(job.settings, job.inspected, InProcess())
    shards = read_shards(ReadUnit(plan.shards), Source(plan.layout, plan.files))
    monkeypatch.setattr("rankmill.tables.locate.open_input", lambda uri, _: Flaky(uri))
    monkeypatch.setattr(Flaky, "opened", 0)
    monkeypatch.setattr(Flaky, "damaged", times)
    if not finished:
        with pytest.raises(DamagedInputError, match="CRC checksum verification failed"):
            list(shards)
        return
    texts = [text for _, table in shards for text in table.column("document").to_pylist()]
    assert texts == [row["text"] for row in rows]
    assert Flaky.opened == 3


def test_files_that_cannot_be_read_are_rejected_as_one_row_each(tmp_path: Path, model: Path) -> None:
    folder = tmp_path / "in"
    good = write_parquet(folder / "a.parquet", some(4))
    (folder / "b.parquet").write_bytes(b"")
    (folder / "c.parquet").write_bytes(good.read_bytes()[:-50])
    ids = [{**row, "query_id": "last words"} for row in some(4, "z")]
    half_damaged(folder / "d.parquet", ids)
    done = run_job(folder, tmp_path / "out", model, bad_files="reject", max_rejected="3")
    assert (done.totals.pairs_in, done.totals.rejected, done.totals.rows_out) == (7, 3, 4)
    rejected = read_rejected(tmp_path / "out").to_pylist()
    assert [Path(row["source"]).name for row in rejected] == ["b.parquet", "c.parquet", "d.parquet"]
    assert {row["reason"] for row in rejected} == {"unreadable_file"}
    assert "it is empty (0 bytes)" in rejected[0]["detail"]
    record = orjson.loads((tmp_path / "out" / "_rankmill" / "job.json").read_bytes())
    assert [Path(uri).name for uri in record["plan"]["rejected_files"]] == ["b.parquet", "c.parquet", "d.parquet"]
    assert main(["verify", str(tmp_path / "out")]) == 0


def test_an_input_of_nothing_but_bad_files_is_refused(tmp_path: Path, model: Path) -> None:
    (tmp_path / "in.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"it is empty \(0 bytes\)"):
        run_job(tmp_path / "in.parquet", tmp_path / "out", model, bad_files="reject")


@pytest.mark.usefixtures("reader")
def test_no_row_of_a_file_that_is_written_over_is_committed(tmp_path: Path, model: Path) -> None:
    """F13: over where it lies, in the middle of the job, by one of the same size and the same ids."""
    rows = [row for number in range(40) for row in some(3, f"q{number:02}")]
    source = write_parquet(tmp_path / "in.parquet", rows)
    other = write_parquet(tmp_path / "other.parquet", [{**row, "text": row["text"].swapcase()} for row in rows])
    job = batch.prepare(settings_for(source, tmp_path / "out", model, shard_pairs=3))

    class Meddling(InProcess):
        def run_shards(self, encode: Encode, scorer: ScorerOptions, write: Write) -> Generator[Receipt]:
            for count, receipt in enumerate(InProcess().run_shards(encode, scorer, write)):
                if count == 2:
                    with source.open("r+b") as handle:
                        handle.write(other.read_bytes())
                yield receipt

    with pytest.raises(InputError, match=r"in\.parquet was replaced"):
        batch.run(job, Meddling())
    committed = pq.read_table([str(path) for path in (tmp_path / "out").glob("part-*.parquet")])
    assert 0 < len(committed) < len(rows) // 2
