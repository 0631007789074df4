"""What cannot be used is refused with exit code 2 before anything is written, naming every culprit and the fix."""

import gzip
import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

from rankmill.cli.main import main
from rankmill.errors import InputError
from tests.batch.conftest import Row, nested, write_jsonl, write_parquet
from tests.batch.jobs import run_job

GOOD: Row = {"query_id": "q", "query": "fox", "doc_id": "d", "text": "dog"}
Maker = Callable[[Path], object]
CODEC_LZO = 3


def parquet_bytes(rows: list[Row], **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, **options)
    return sink.getvalue()


def of_unknown_codec() -> bytes:
    """A file whose footer names a compression that Arrow cannot undo: field 4 of every ColumnMetaData is turned."""
    body = parquet_bytes([GOOD], compression="snappy")
    size = int.from_bytes(body[-8:-4], "little")
    footer = body[-8 - size : -8]
    for name in GOOD:  # path_in_schema (a list of one string), then the codec, an i32 of one byte
        before = b"\x19\x18" + bytes([len(name)]) + name.encode() + b"\x15"
        assert before + b"\x02" in footer
        footer = footer.replace(before + b"\x02", before + bytes([2 * CODEC_LZO]))
    return body[: -8 - size] + footer + body[-8:]


def extension_table(folder: Path, column: str, storage: pa.Array, name: str) -> Path:
    plain = pa.Table.from_pylist([GOOD])
    field = pa.field(column, storage.type, metadata={b"ARROW:extension:name": name.encode()})
    at = plain.schema.get_field_index(column)
    changed = plain.append_column(field, storage) if at < 0 else plain.set_column(at, field, storage)
    pq.write_table(changed, folder / "in.parquet")
    return folder / "in.parquet"


def rerank(capsys: pytest.CaptureFixture[str], *flags: object) -> tuple[int, str]:
    """Exit code of `rankmill rerank`, and what it said: stderr, then stdout."""
    code = main(["rerank", *map(str, flags)])
    said = capsys.readouterr()
    return code, said.err + said.out


def table(folder: Path, **columns: pa.Array | list[Any]) -> Path:
    values = {"query_id": ["q"], "query": ["fox"], "doc_id": ["d"], "text": ["dog"]} | columns
    path = folder / "in.parquet"
    pq.write_table(pa.table({name: value for name, value in values.items() if value is not None}), path)
    return path


def text_file(folder: Path, name: str, body: bytes) -> Path:
    (folder / name).write_bytes(body)
    return folder / name


def files(folder: Path, **contents: bytes | list[Row]) -> Path:
    """Parquet files of rows, or of bytes that are no Parquet."""
    for name, content in contents.items():
        if isinstance(content, bytes):
            text_file(folder, f"{name}.parquet", content)
        else:
            write_parquet(folder / f"{name}.parquet", content)
    return folder


def duplicate_columns() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table([["q"], ["fox"], ["d"], ["dog"], ["cat"]], [*GOOD, "text"]), sink)
    return sink.getvalue()


def twice_in_candidates() -> pa.Array:
    structs = pa.StructArray.from_arrays(
        [pa.array(["d"]), pa.array(["a"]), pa.array(["b"])], ["doc_id", "text", "text"]
    )
    return pa.ListArray.from_arrays([0, 1], structs)


CASES: dict[str, tuple[Maker, list[str]]] = {
    "nothing there": (lambda f: f / "absent", ["absent does not exist"]),
    "empty folder": (lambda f: f, ["no files there"]),
    "a glob without matches": (lambda f: f / "*.parquet", ["*.parquet: no files there"]),
    "other files": (
        lambda f: text_file(f, "notes.txt", b"hello").parent,
        ["1 of 1 files are neither Parquet nor JSONL", "notes.txt", "FOLDER/*.parquet"],
    ),
    "a zero-row file": (lambda f: write_parquet(f / "z.parquet", [], pa.Table.from_pylist([GOOD]).schema), ["no rows"]),
    "a zero-byte file": (lambda f: text_file(f, "z.parquet", b""), ["z.parquet: it is empty (0 bytes)"]),
    "not Parquet": (lambda f: text_file(f, "x.parquet", b"PAR1 but not really"), ["x.parquet cannot be read"]),
    "not gzip": (lambda f: text_file(f, "x.jsonl.gz", b"{}"), ["x.jsonl.gz is named like a gzip file but is none"]),
    "not JSON": (lambda f: text_file(f, "x.jsonl", b"query_id,query\n"), ["line 1 is not a JSON object"]),
    "a missing column": (
        lambda f: table(f, text=None, txt=["dog"]),
        ["no column text (it has query_id, query, doc_id, txt)", "did you mean txt? Then say --columns.text txt"],
    ),
    "a missing column in other case": (
        lambda f: table(f, query_id=None, QUERY_ID=["q"], text=None, Text=["dog"]),
        ["did you mean QUERY_ID? Then say --columns.query-id QUERY_ID", "did you mean Text? Then say --columns.text"],
    ),
    "a column twice": (
        lambda f: text_file(f, "x.parquet", duplicate_columns()),
        ["the column text is there more than once"],
    ),
    "a field twice": (
        lambda f: table(f, candidates=twice_in_candidates()),
        ["candidates has the field text more than once"],
    ),
    "text of an extension type": (
        lambda f: extension_table(f, "text", pa.array(["dog"]), "someone.elses"),
        ["text is of the extension type someone.elses, and reading one can run code"],
    ),
    "a damaged footer": (
        lambda f: text_file(f, "x.parquet", (b := parquet_bytes([GOOD]))[:-30] + b"\xff" * 22 + b[-8:]),
        ["x.parquet cannot be read"],
    ),
    "a file cut short": (
        lambda f: text_file(f, "x.parquet", (b := parquet_bytes([GOOD]))[: len(b) // 2]),
        ["x.parquet cannot be read"],
    ),
    "an absurd length of the footer": (
        lambda f: text_file(f, "x.parquet", parquet_bytes([GOOD])[:-8] + struct.pack("<I", 0x7FFFFFFF) + b"PAR1"),
        ["x.parquet cannot be read"],
    ),
    "an encrypted file": (
        lambda f: text_file(f, "x.parquet", parquet_bytes([GOOD])[:-4] + b"PARE"),
        ["x.parquet cannot be read"],
    ),
    "an unknown compression": (lambda f: text_file(f, "x.parquet", of_unknown_codec()), ["x.parquet", "LZO"]),
    "timestamps as text": (lambda f: table(f, text=pa.array([0], pa.timestamp("ns"))), ["text is timestamp[ns]"]),
    "many files of a few schemas": (
        lambda f: files(f, a=[GOOD], b=[GOOD], c=[{**GOOD, "doc_id": 1}], d=[{**GOOD, "doc_id": 2}], e=[GOOD]),
        [
            "c.parquet and 1 more like it differ from",
            "a.parquet and 2 more like it: doc_id is int64 there, string here",
        ],
    ),
    "integer text": (lambda f: table(f, text=[1]), ["text is int64; text must be a string column"]),
    "binary text": (lambda f: table(f, text=[b"dog"]), ["text is binary; text must be a string column"]),
    "all-null text": (lambda f: table(f, text=[None]), ["text is null; text must be a string column"]),
    "float ids": (lambda f: table(f, doc_id=[1.5]), ["doc_id is double; ids must be strings or integers"]),
    "a score that is text": (lambda f: table(f, retrieval_score=["high"]), ["retrieval_score is string"]),
    "candidates that are no structs": (lambda f: table(f, candidates=[["dog"]]), ["needs a list of structs"]),
    "all bad files at once": (
        lambda f: files(f, a=b"", b=b"x", c=[GOOD]),
        ["a.parquet: it is empty", "b.parquet cannot be read"],
    ),
    "numbers as ids that no integer column can hold": (
        lambda f: text_file(f, "x.jsonl", orjson.dumps({**GOOD, "query_id": 2.5})),
        ["query_id is double; ids must be strings or integers"],
    ),
    "pairs beside nested rows": (
        lambda f: files(f, a=[GOOD], b=nested([GOOD]), c=[GOOD]),
        ["b.parquet differs from", "one row per pair here, one row per query there"],
    ),
    "lists of strings beside pairs": (
        lambda f: table(files(f, a=[GOOD]), candidates=[["dog"]]).parent,
        ["in.parquet: candidates is list<", "nested input needs a list of structs with doc_id and text"],
    ),
    "nothing but lines beyond all measure": (
        lambda f: text_file(f, "x.jsonl.gz", gzip.compress(b'{"text": "' + b"z" * MORE_THAN_A_LINE + b'"}', 1)),
        ["x.jsonl.gz, line 1: the line has 73,400,332 bytes, and 67,108,864 are allowed", "--max-text-bytes"],
    ),
    "values nested without end": (
        lambda f: text_file(f, "x.jsonl", b'{"query_id": ' + b"[" * 900 + b"]" * 900 + b"}"),
        ["x.jsonl: "],
    ),
    "files of two schemas": (
        lambda f: files(f, a=[GOOD], b=[{**GOOD, "query_id": 1}], c=[{**GOOD, "title": "T"}]),
        ["b.parquet differs from", "query_id is int64 there, string here", "title is there but not here"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_unusable_input_is_refused(case: str, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """F24: no files, files without rows; and everything else that cannot be used."""
    make, sentences = CASES[case]
    (tmp_path / "in").mkdir()
    source = make(tmp_path / "in")
    code, message = rerank(capsys, "--input", source, "--output", tmp_path / "out", "--model", model)
    assert code == 2
    for sentence in sentences:
        assert sentence in message
    assert not (tmp_path / "out").exists()


MORE_THAN_A_LINE = 70 << 20
"""Bytes; 64 MiB are allowed."""


def test_rows_that_no_memory_is_meant_to_hold_are_refused(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a lower limit than the 512 MiB of a shard."""
    monkeypatch.setattr("rankmill.tables.footers.TABLE_BYTES", 1000)
    source = write_parquet(tmp_path / "in.parquet", [{**GOOD, "text": str(list(range(1000)))}])
    code, message = rerank(capsys, "--input", source, "--output", tmp_path / "out", "--model", model)
    assert code == 2
    assert "the rows of row group 0 have" in message
    assert "the texts of a whole shard may have 1,000" in message
    assert not (tmp_path / "out").exists()


def test_every_file_that_is_damaged_far_from_its_start_is_named(tmp_path: Path, model: Path) -> None:
    """A byte is turned behind the first thousand lines, and in the ids, far before the footer."""
    rows = [{**GOOD, "query_id": str(n**9), "doc_id": str(n)} for n in range(20_000)]
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl.gz", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in" / "b.parquet", write_page_checksum=True)
    write_jsonl(tmp_path / "in" / "c.jsonl.gz", rows)
    for path in (tmp_path / "in").iterdir():
        body = bytearray(path.read_bytes())
        body[1000 if path.suffix == ".parquet" else len(body) // 2] ^= 0xFF
        path.write_bytes(body)
    write_parquet(tmp_path / "in" / "good.parquet", rows[:5])
    with pytest.raises(InputError) as refused:
        run_job(tmp_path / "in", tmp_path / "out", model)
    message, *problems = str(refused.value).splitlines()
    assert message == f"--input {tmp_path / 'in'} cannot be used; nothing was written."
    assert [Path(problem.split()[1]).name for problem in problems] == ["a.jsonl.gz", "b.parquet", "c.jsonl.gz"]
    assert not list((tmp_path / "out").glob("*"))


FLAGS: dict[str, tuple[list[object], list[str]]] = {
    "top-k of zero": (["--top-k", 0], ["--top-k 0", "greater than or equal to 1"]),
    "an unknown flag": (["--top-q", 3], ["--top-q is not a flag", "Did you mean --top-k?"]),
    "workers turned round": (["--workers", "3,1"], ["--workers 3,1"]),
    "workers that are no number": (["--workers", "many"], ["--workers", "a range such as 1,8"]),
    "an allowance that is none": (["--max-rejected", "few"], ["--max-rejected few", "0.1%"]),
    "kept twice": (["--keep", "doc_id"], ["--keep doc_id", "has a column of that name already"]),
    "kept but not there": (["--keep", "txt"], ["no column txt", "did you mean text"]),
    "an empty template": (["--document-template", "plain"], ["--document-template 'plain'", "column names in braces"]),
    "a template of nothing there": (["--document-template", "{body}"], ["no column body"]),
    "a length beyond the model": (["--max-length", 4096], ["--max-length 4096", "128"]),
    "queries that fill the length": (
        ["--max-length", 64, "--max-query-tokens", 64],
        ["--max-query-tokens 64", "--max-length 64"],
    ),
    "an output scheme nobody knows": (["--output", "ftp://host/x"], ["ftp://", "s3://"]),
    "a run in a folder that is not there": (["--trec-run", "absent/x.trec"], ["absent/x.trec", "make it first"]),
    "a run that is a folder": (["--trec-run", "/"], ["--trec-run / is a folder"]),
    "a run that nobody can write": (["--trec-run", "ftq://host/x"], ["--trec-run ftq://host/x", "ftq"]),
    "a config that is not there": (["--config", "absent.yaml"], ["--config absent.yaml"]),
}


@pytest.mark.parametrize("case", FLAGS)
def test_unusable_flags_are_refused(case: str, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags, sentences = FLAGS[case]
    source = write_parquet(tmp_path / "in.parquet", [GOOD])
    code, message = rerank(capsys, "--input", source, "--output", tmp_path / "out", "--model", model, *flags)
    assert code == 2
    for sentence in sentences:
        assert sentence in message
    assert not (tmp_path / "out").exists()


def language_model(folder: Path) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}))
    save_file({}, folder / "model.safetensors")
    return folder


def pickled(folder: Path) -> Path:
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "num_labels": 1}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    return folder


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (language_model, "Qwen3ForCausalLM"),
        (pickled, "safetensors"),
        (lambda folder: folder, "empty"),
        (lambda folder: folder / "absent", "absent"),
    ],
)
def test_a_folder_that_is_no_cross_encoder_is_refused(
    make: Callable[[Path], Path], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_parquet(tmp_path / "in.parquet", [GOOD])
    (tmp_path / "model").mkdir()
    folder = make(tmp_path / "model")
    code, message = rerank(capsys, "--input", source, "--output", tmp_path / "out", "--model", folder)
    assert code == 2
    assert sentence in message
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_holds_something_else_is_refused(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """F19."""
    source = write_parquet(tmp_path / "in.parquet", [GOOD])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").write_text("precious")
    code, message = rerank(capsys, "--input", source, "--output", tmp_path / "out", "--model", model)
    assert code == 3
    assert "thesis.docx" in message
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.docx"]


def test_a_config_file_and_the_environment_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "job.yaml"
    config.write_text("input: from-file\noutput: out\ntop-k: 3\n")
    assert rerank(capsys, "--config", config)[1].startswith("rankmill rerank: --input from-file does not exist")
    monkeypatch.setenv("RANKMILL_INPUT", "from-environment")
    assert "--input from-environment" in rerank(capsys, "--config", config)[1]
    assert "--input from-flag" in rerank(capsys, "--config", config, "--input", "from-flag")[1]
    config.write_text("inptu: x\noutput: out\n")
    assert "--inptu is not a setting of `rankmill rerank`" in rerank(capsys, "--config", config)[1]
