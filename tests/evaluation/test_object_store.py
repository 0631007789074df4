"""Everything may live in an object store."""

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.cli.main import main
from rankmill.errors import InputError, StorageError
from rankmill.evaluation.command import evaluate_command
from rankmill.evaluation.read import read_qrels, read_results
from rankmill.settings.evaluate import EvaluateSettings
from rankmill.settings.storage import StorageSettings
from rankmill.storage.store import Store
from tests.conftest import S3Bucket


def test_evaluates_from_s3_to_s3(s3: S3Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    with fsspec.open(s3.uri("qrels.tsv.gz"), "wt", compression="gzip") as handle:
        handle.write("query-id\tcorpus-id\tscore\nq\ta\t1\n")
    with fsspec.open(s3.uri("run/part-000000.parquet"), "wb") as handle:
        pq.write_table(pa.table({"query_id": ["q"], "doc_id": ["a"], "rank": [1], "score": [0.5]}), handle)
    with fsspec.open(s3.uri("run/_rankmill/plan.json"), "wt") as handle:
        handle.write("{}")
    settings = EvaluateSettings(
        qrels=s3.uri("qrels.tsv.gz"), run=s3.uri("run"), measures="RR@10", report=s3.uri("report.html")
    )
    assert evaluate_command(settings) == 0
    assert "1.0000" in capsys.readouterr().out
    with fsspec.open(s3.uri("report.html"), "rt") as handle:
        assert "RR@10" in handle.read()


@pytest.mark.parametrize("run", ["run.trec", "run"])
def test_the_storage_flags_say_where_the_store_is(
    s3: S3Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: str
) -> None:
    """Whatever the environment says: there is nothing at its endpoint."""
    with fsspec.open(s3.uri("qrels.tsv"), "wt") as handle:
        handle.write("q 0 a 1\n")
    with fsspec.open(s3.uri("run.trec"), "wt") as handle:
        handle.write("q Q0 a 1 0.5 x\n")
    with fsspec.open(s3.uri("run/part-000000.parquet"), "wb") as handle:
        pq.write_table(pa.table({"query_id": ["q"], "doc_id": ["a"], "rank": [1], "score": [0.5]}), handle)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    flags = ["--qrels", s3.uri("qrels.tsv"), "--run", s3.uri(run), "--baseline", s3.uri("run"), "--measures", "RR@10"]
    report = ["--report", s3.uri("report.html"), "--storage.endpoint", s3.endpoint]
    assert main(["evaluate", *flags, *report]) == 0
    assert "1.0000" in capsys.readouterr().out
    assert Store(s3.uri(), StorageSettings(endpoint=s3.endpoint)).head("report.html") is not None


def test_missing_files_and_buckets_are_named(s3: S3Bucket) -> None:
    with pytest.raises(InputError, match=r"none\.tsv does not exist"):
        read_qrels(s3.uri("none.tsv"))
    with pytest.raises((InputError, StorageError), match="no-such-bucket-at-all"):
        read_results("s3://no-such-bucket-at-all/run/")


def test_missing_credentials_are_a_storage_error(s3: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    file_system = fsspec.get_filesystem_class("s3")
    file_system.clear_instance_cache()  # an instance keeps the credentials that it found first
    try:
        with pytest.raises(StorageError, match="credentials"):
            read_qrels(s3.uri("qrels.tsv"))
    finally:
        file_system.clear_instance_cache()
