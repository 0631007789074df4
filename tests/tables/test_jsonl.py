"""The schema of JSONL is inferred field by field, so that an odd value here and there spoils no file."""

import gzip
import io
import random
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from rankmill.errors import InputError, StorageError
from rankmill.settings.rerank import Columns
from rankmill.tables.errors import storage_errors
from rankmill.tables.jsonl import find_runs, sample_schema
from rankmill.tables.locate import InputFile, find_files
from rankmill.tables.schema import Layout, layout_of


def jsonl(folder: Path, *rows: Any, name: str = "in.jsonl") -> InputFile:
    body = b"\n".join(map(orjson.dumps, rows))
    (folder / name).write_bytes(gzip.compress(body) if name.endswith(".gz") else body)
    return find_files(str(folder / name))[0]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None, None], pa.null()),
        ([1, 2, None], pa.int64()),
        ([1, 2, 2.5], pa.float64()),
        ([1, 2, "3"], pa.int64()),
        (["a", "b", 3, {}], pa.string()),
        ([True, 1, 2], pa.int64()),
        ([True, False], pa.bool_()),
        ([2**64 - 1, 1], pa.int64()),
        ([["a"], [], None, "b"], pa.list_(pa.string())),
        ([[{"a": 1}], [{"a": 2.5, "b": "c"}, None]], pa.list_(pa.struct({"a": pa.float64(), "b": pa.string()}))),
    ],
)
def test_types(values: list[Any], kind: pa.DataType, tmp_path: Path) -> None:
    assert sample_schema(jsonl(tmp_path, *({"x": value} for value in values))).field("x").type == kind


def test_one_odd_candidate_does_not_refuse_the_file(tmp_path: Path) -> None:
    row = {"query_id": "q", "query": "fox", "candidates": [{"doc_id": "a", "text": "dog"}] * 3}
    odd = {**row, "candidates": [{"doc_id": "b", "text": 7}, "none", {"doc_id": 8, "text": "cat"}]}
    schema = sample_schema(jsonl(tmp_path, row, odd))
    assert schema.field("candidates").type == pa.list_(pa.struct({"doc_id": pa.string(), "text": pa.string()}))


def layout(file: InputFile) -> Layout:
    found, problems = layout_of(sample_schema(file), Columns(), (), None)
    assert found is not None, problems
    return found


def test_every_line_makes_a_pair(tmp_path: Path) -> None:
    row = {"query_id": "q", "query": "fox", "candidates": [{"doc_id": "a", "text": "dog"}] * 3}
    lists: list[Any] = [[], None, "none", [None, 5]]
    rows = [row, *({**row, "candidates": each, "query_id": str(n)} for n, each in enumerate(lists)), 5]
    file = jsonl(tmp_path, *rows)
    assert find_runs(file, layout(file)).pairs.tolist() == [3, 1, 1, 1, 3]


def test_large_lines_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankmill.tables.lines._CHUNK_BYTES", 100)
    rows = [{"query_id": n, "query": "fox", "doc_id": n, "text": "dog" * 20} for n in range(5)]
    file = jsonl(tmp_path, *rows, name="in.jsonl.gz")
    assert find_runs(file, layout(file)).start.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz"])
def test_a_store_is_asked_for_large_ranges(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = random.Random(1)  # noqa: S311 - test data
    rows = [{"query_id": n, "query": "fox", "doc_id": n, "text": noise.randbytes(500).hex()} for n in range(900)]
    file = jsonl(tmp_path, *rows, name=name)
    asked: list[int] = []

    class Remote(io.FileIO):
        def readinto(self, buffer: Any) -> int | None:
            asked.append(len(buffer))
            return super().readinto(buffer)

    monkeypatch.setattr("rankmill.tables.locate.open_input", lambda uri, _: Remote(uri))
    assert find_runs(file, layout(file)).pairs.sum() == 900
    assert min(asked) == 1 << 20


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (FileNotFoundError(2, "no"), InputError, "FILE does not exist"),
        (PermissionError(13, "no"), StorageError, "FILE: no permission to read it"),
        (EOFError("ended"), InputError, "FILE is damaged or cut short"),
        (gzip.BadGzipFile("CRC check failed"), InputError, "FILE is named like a gzip file but is none, or is damaged"),
        (pa.ArrowInvalid("no magic\nbytes"), InputError, "FILE cannot be read: no magic$"),
        (OSError("page checksum"), InputError, "FILE cannot be read: page checksum"),
        (OSError(5, "I/O"), StorageError, "FILE cannot be used"),
        (KeyError("a bug of ours"), KeyError, "a bug of ours"),
    ],
)
def test_what_file_systems_raise(error: Exception, expected: type[Exception], words: str) -> None:
    with pytest.raises(expected, match=words), storage_errors("FILE"):
        raise error
