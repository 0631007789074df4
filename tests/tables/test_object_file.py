"""Inputs on S3: how many requests a file costs, and that all bytes are of one version."""

import io
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from rankmill.bench.scale.s3 import requests_of, s3_server
from rankmill.errors import InputError
from rankmill.settings.rerank import RerankSettings
from rankmill.storage.store import Store
from rankmill.tables.errors import storage_errors
from rankmill.tables.footers import read_footer
from rankmill.tables.locate import InputFile, find_files, open_file
from rankmill.tables.parquet import find_runs
from rankmill.tables.schema import Layout, layout_of


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    s3fs.S3FileSystem.clear_instance_cache()  # an instance keeps the endpoint that it found first
    with s3_server() as url:
        yield url
    s3fs.S3FileSystem.clear_instance_cache()


def put(name: str, body: bytes) -> InputFile:
    Store("s3://files/in").create(name, body)
    (file,) = find_files(f"s3://files/in/{name}")
    return file


def parquet(rows: int, row_group_size: int) -> bytes:
    noise = random.Random(rows)  # noqa: S311 - test data
    sink = io.BytesIO()
    texts = [noise.randbytes(100).hex() for _ in range(rows)]
    columns = {"query_id": [f"q{n // 3}" for n in range(rows)], "query": texts, "doc_id": texts, "text": texts}
    pq.write_table(pa.table(columns), sink, row_group_size=row_group_size, write_page_checksum=True)
    return sink.getvalue()


def layout(file: InputFile) -> Layout:
    settings = RerankSettings(input="i", output="o")
    found, _ = layout_of(read_footer(file).schema, settings.columns, (), settings.document_template)
    assert found is not None
    return found


def test_a_small_file_costs_one_request_whatever_is_read_of_it(server: str, tmp_path: Path) -> None:
    body = parquet(90, 9)
    assert len(body) < 256 << 10
    file = put("small.parquet", body)
    (tmp_path / "small.parquet").write_bytes(body)
    (local,) = find_files(str(tmp_path))
    before = requests_of(server)
    assert read_footer(file) == read_footer(local)
    assert requests_of(server) - before == 1
    wanted = layout(local)
    before = requests_of(server)
    there, here = find_runs(file, wanted), find_runs(local, wanted)
    assert requests_of(server) - before == 1
    assert there.query.tolist() == here.query.tolist()
    assert there.start.tolist() == here.start.tolist() == list(range(0, 90, 3))


def test_of_a_large_file_the_footer_and_one_page_header_are_read(server: str) -> None:
    body = parquet(2000, 1000)
    assert len(body) > 256 << 10
    file = put("large.parquet", body)
    before = requests_of(server)
    assert (read_footer(file).rows, read_footer(file).checked) == (2000, True)
    assert requests_of(server) - before == 4  # of two looks


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("size", [0, 1, 100_000, 400_000])
def test_it_reads_like_any_file(size: int) -> None:
    body = random.Random(size).randbytes(size)  # noqa: S311 - test data
    file = put(f"{size}.jsonl", body)
    expected = io.BytesIO(body)
    with open_file(file) as handle:
        for offset, whence, count in [
            (0, 0, 10),
            (-9, 2, 4),
            (0, 1, 100),
            (70_000, 0, 8),
            (size + 5, 0, 3),
            (3, 0, -1),
        ]:
            if size + offset < 0:
                continue
            expected.seek(offset, whence), handle.seek(offset, whence)
            assert handle.read(count) == expected.read(count)
            assert handle.tell() == expected.tell()
    with open_file(file) as handle:
        assert io.BufferedReader(handle).read() == body  # type: ignore[type-var]


@pytest.mark.usefixtures("server")
def test_no_byte_of_another_version_is_read() -> None:
    file = put("replaced.jsonl", b"a" * 300_000)
    handle = open_file(file)
    assert handle.read(2) == b"aa"
    Store("s3://files/in").delete(["replaced.jsonl"])
    with pytest.raises(InputError, match="does not exist"), storage_errors(file.uri):
        handle.read(2)
    Store("s3://files/in").create("replaced.jsonl", b"b" * 300_000)
    with pytest.raises(InputError, match=r"The input changed while the job ran: .*replaced\.jsonl was replaced"):
        handle.read(2)
