"""A HEAD of a part on S3 tells its hash and its counts, and whose it is; stores that keep no metadata do as well."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pyarrow.parquet as pq
import pytest

from rankmill.batch.recorded import open_output, read
from rankmill.batch.verify import Verified, verify
from rankmill.settings.storage import StorageSettings
from rankmill.storage.store import TOKEN, Store
from tests.batch.conftest import Row, write_parquet
from tests.batch.jobs import run_job
from tests.conftest import S3Bucket
from tests.fault_proxy import Fault, FaultProxy, running_fault_proxy

NAMES = ("rankmillsha256", "rankmillshard", "rankmillqueries", "rankmillrows", "rankmillrejected")


@pytest.fixture
def proxy(s3: S3Bucket) -> Iterator[FaultProxy]:
    with running_fault_proxy(FaultProxy(s3.endpoint)) as running:
        yield running


@pytest.fixture
def source(tmp_path: Path, rows: list[Row]) -> Path:
    """A row of the first shard has no text."""
    return write_parquet(tmp_path / "in.parquet", [{**rows[0], "text": None}, *rows])


def look(uri: str) -> Verified:
    return verify(read(open_output(uri, StorageSettings())), deep=True)


def run(source: Path, s3: S3Bucket, proxy: FaultProxy, model: Path) -> list[str]:
    """Run a job whose output lies behind the proxy; returns the keys of its parts."""
    storage = StorageSettings(endpoint=proxy.url)
    run_job(source, s3.uri("out"), model, max_rejected=1, top_k=4, storage=storage)
    return [f"out/{key}" for key in Store(s3.uri("out")).top_level() if key.startswith("part-")]


def heads(s3: S3Bucket, keys: list[str]) -> list[dict[str, Any]]:
    client = boto3.client("s3")
    found = [client.head_object(Bucket=s3.bucket, Key=key)["Metadata"] for key in keys]
    client.close()
    return found


def expected(s3: S3Bucket, key: str) -> dict[str, str]:
    """What the part itself says."""
    body = Store(s3.uri()).read(key)
    part = pq.read_table(s3.uri(key))
    number = int(key.removesuffix(".parquet")[-6:])
    values = (
        hashlib.sha256(body).hexdigest(),
        number,
        len(set(part["query_id"].to_pylist())),
        len(part),
        int(number == 0),
    )
    return dict(zip(NAMES, map(str, values), strict=True))


def requests_for(proxy: FaultProxy, key: str, *methods: str) -> list[str]:
    return [method for method, path, _ in proxy.requests if path.endswith(key) and method in methods]


def test_a_head_tells_hash_and_counts_of_a_part_that_was_put_once(
    source: Path, model: Path, s3: S3Bucket, proxy: FaultProxy
) -> None:
    keys = run(source, s3, proxy, model)
    assert len(keys) > 3
    for key, head in zip(keys, heads(s3, keys), strict=True):
        assert len(head.pop(TOKEN)) == 32
        assert head == expected(s3, key)
        assert requests_for(proxy, key, "PUT", "POST") == ["PUT"]
    assert look(s3.uri("out")).whole


def test_a_part_whose_acknowledgement_was_lost_is_known_again(
    source: Path, model: Path, s3: S3Bucket, proxy: FaultProxy
) -> None:
    proxy.faults.append(Fault("reset_after", "PUT", path=r"out/part-000001\.parquet$"))
    keys = run(source, s3, proxy, model)
    assert requests_for(proxy, keys[1], "PUT", "HEAD", "GET") == ["PUT", "PUT", "HEAD"], "it need not be read"
    assert {name: heads(s3, keys)[1][name] for name in NAMES} == expected(s3, keys[1])


def test_a_store_that_keeps_no_metadata_costs_a_read_after_a_lost_acknowledgement_and_nothing_else(
    source: Path, model: Path, s3: S3Bucket, proxy: FaultProxy
) -> None:
    proxy.dropped_headers = [f"x-amz-meta-{name}" for name in (*NAMES, TOKEN)]
    proxy.faults.append(Fault("reset_after", "PUT", path=r"out/part-000001\.parquet$"))
    keys = run(source, s3, proxy, model)
    assert requests_for(proxy, keys[1], "PUT", "HEAD", "GET") == ["PUT", "PUT", "HEAD", "GET"]
    assert heads(s3, keys) == [{}] * len(keys)
    assert look(s3.uri("out")).whole


def test_verify_finds_metadata_that_lies_and_misses_none_where_a_copy_has_none(
    source: Path, model: Path, s3: S3Bucket, proxy: FaultProxy
) -> None:
    key = run(source, s3, proxy, model)[2]
    client = boto3.client("s3")
    for metadata, problems in (({"rankmillsha256": "0" * 64}, ["part-000002.parquet"]), ({}, [])):
        client.copy_object(
            Bucket=s3.bucket, Key=key, CopySource=f"{s3.bucket}/{key}", Metadata=metadata, MetadataDirective="REPLACE"
        )
        assert [problem.file for problem in look(s3.uri("out")).problems] == problems
    client.close()
