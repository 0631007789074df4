"""What turns out to be bad while a command reads its input: the exit code, what is said, and what is left."""

import gzip
import re
import subprocess
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.cli.main import main
from tests.batch.conftest import write_parquet
from tests.batch.test_bad_input import GOOD, MORE_THAN_A_LINE, parquet_bytes, rerank, text_file

WORKERS = ["--workers", "1", "--cpus-per-worker", "1"]


def not_utf8(texts: list[bytes]) -> pa.Array:
    """A string column that is none; Parquet readers do not look."""
    buffers = pa.array(texts, pa.binary()).buffers()
    return pa.StringArray.from_buffers(len(texts), *buffers[1:], buffers[0])


def of_many_sorts(folder: Path) -> Path:
    """Files that differ in spelling alone, and rows in them that cannot be scored."""
    queries = [{**GOOD, "query_id": f"q{n}", "doc_id": f"d{n}"} for n in range(6)]
    dictionary = pa.Table.from_pylist(queries[:1]).set_column(3, "text", pa.array(["dog"]).dictionary_encode())
    pq.write_table(dictionary, folder / "a.parquet", write_page_checksum=True)
    large = pa.Table.from_pylist(queries[1:2]).set_column(3, "text", pa.array(["dog"], pa.large_string()))
    pq.write_table(large, folder / "b.parquet")
    texts = not_utf8([b"dog", b"\xff\xfe", b"cat"])
    pq.write_table(pa.Table.from_pylist(queries[2:5]).set_column(3, "text", texts), folder / "c.parquet")
    lines = [orjson.dumps(queries[5]), b"{", orjson.dumps({**GOOD, "text": "z" * MORE_THAN_A_LINE})]
    (folder / "d.jsonl.gz").write_bytes(gzip.compress(b"\n".join(lines), 1))
    return folder


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_rows_that_cannot_be_scored_fail_the_command_or_are_an_output(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    output = tmp_path / "out"
    flags = ["--input", of_many_sorts(tmp_path / "in"), "--output", output, "--model", model, *WORKERS]
    code, message = rerank(capsys, *flags)
    assert code == 5
    assert "could not be scored" in message
    assert "--max-rejected 0.1% allows 0" in message
    assert not (output / "_SUCCESS").exists()
    code, message = rerank(capsys, *flags, "--max-rejected", 3)
    assert code == 0
    assert f"3 rows could not be scored: {output}/_rejected" in message
    assert "2 input files without checksums: " in message
    rejected = pq.read_table(output / "_rejected").sort_by([("source", "ascending"), ("row", "ascending")]).to_pylist()
    assert [(Path(row["source"]).name, row["row"], row["reason"]) for row in rejected] == [
        ("c.parquet", 1, "invalid_unicode"),
        ("d.jsonl.gz", 1, "invalid_json"),
        ("d.jsonl.gz", 2, "text_too_large"),
    ]
    assert re.match(r"the line has 73,400,\d{3} bytes, and 67,108,864 are allowed", rejected[2]["detail"])
    assert sorted(pq.read_table(output)["doc_id"].to_pylist()) == ["d0", "d1", "d2", "d4", "d5"]
    assert main(["verify", str(output), "--deep"]) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_flipped_byte_ends_the_command_where_there_are_checksums(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    body = bytearray(parquet_bytes([GOOD, {**GOOD, "text": "last words"}], write_page_checksum=True, **options))
    body[body.index(b"last words")] ^= 1
    source = text_file(tmp_path, "in.parquet", bytes(body))
    code, message = rerank(capsys, "--input", source, "--output", tmp_path / "out", "--model", model, *WORKERS)
    assert code == 2
    assert f"{source} cannot be read: could not verify page integrity, CRC checksum verification failed" in message
    assert not (tmp_path / "out" / "_SUCCESS").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_file_that_is_replaced_meanwhile_ends_the_command(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By another process, as soon as the first shard is committed."""
    rows = [{**GOOD, "query_id": f"q{n:03}"} for n in range(60)]
    source = write_parquet(tmp_path / "in.parquet", rows)
    write_parquet(tmp_path / "other.parquet", [{**row, "text": "cat"} for row in rows])
    replace = f"until ls {tmp_path}/out/part-*; do sleep 0.02; done; mv {tmp_path}/other.parquet {source}"
    with subprocess.Popen(["sh", "-c", replace], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as other:
        flags = ["--input", source, "--output", tmp_path / "out", "--model", model, *WORKERS, "--shard-pairs", 1]
        code, message = rerank(capsys, *flags)
        other.terminate()
    assert code == 2
    assert "The input changed while the job ran" in message
    assert f"{source} was replaced" in message
    assert not (tmp_path / "out" / "_SUCCESS").exists()
