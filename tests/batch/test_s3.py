"""The same job from bucket to bucket, and what a bucket can refuse."""

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pyarrow.parquet as pq
import pytest

from rankmill.cli.main import main
from tests.batch.conftest import Row, write_jsonl, write_parquet
from tests.batch.jobs import read_rankings, run_job, run_on_ray
from tests.conftest import S3Bucket


@contextmanager
def denying(s3: S3Bucket) -> Iterator[None]:
    """Let the server check who may do what; a user without a policy may do nothing."""
    set_unchecked_requests(s3, "0")
    try:
        yield
    finally:
        set_unchecked_requests(s3, "inf")


def set_unchecked_requests(s3: S3Bucket, count: str) -> None:
    address = f"{s3.endpoint}/moto-api/reset-auth"
    request = urllib.request.Request(address, count.encode(), {"Content-Type": "text/plain"})  # noqa: S310 - loopback
    urllib.request.urlopen(request).close()  # noqa: S310


def upload(s3: S3Bucket, *paths: Path) -> None:
    client = boto3.client("s3")
    for path in paths:
        client.upload_file(str(path), s3.bucket, f"in/{path.name}")
    client.close()


@pytest.mark.usefixtures("local_ray")
def test_bucket_to_bucket_on_ray(tmp_path: Path, model: Path, rows: list[Row], s3: S3Bucket) -> None:
    upload(s3, write_parquet(tmp_path / "a.parquet", rows[:90]), write_parquet(tmp_path / "b.parquet", rows[90:]))
    run = s3.uri("run.trec.gz")
    summary = run_on_ray(s3.uri("in"), s3.uri("out/y"), model, top_k=10, workers=1, cpus_per_worker=1, trec_run=run)
    assert summary.output == s3.uri("out/y")
    run_job(tmp_path, tmp_path / "out", model, top_k=10)
    local, remote = read_rankings(tmp_path / "out"), read_rankings(s3.uri("out/y"))
    assert [(r["query_id"], r["doc_id"], r["rank"]) for r in remote] == [
        (r["query_id"], r["doc_id"], r["rank"]) for r in local
    ]
    assert run_job(s3.uri("in"), s3.uri("out/y"), model, top_k=10, trec_run=run).already_complete


def test_globs_jsonl_and_rejected_rows_in_buckets(tmp_path: Path, model: Path, rows: list[Row], s3: S3Bucket) -> None:
    upload(
        s3,
        write_jsonl(tmp_path / "a.jsonl.gz", [*rows, {**rows[0], "text": None}]),
        write_parquet(tmp_path / "x.parquet", rows),
    )
    summary = run_job(s3.uri("in/*.jsonl.gz"), s3.uri("out"), model, max_rejected=1)
    assert (summary.totals.scored, summary.totals.rejected) == (len(rows), 1)
    assert pq.read_table(s3.uri("out/_rejected")).column("source").to_pylist() == [s3.uri("in/a.jsonl.gz")]
    assert pq.read_table(s3.uri("out")).num_rows == len(rows)


def test_a_folder_made_in_the_console(tmp_path: Path, model: Path, rows: list[Row], s3: S3Bucket) -> None:
    """Such a folder is an empty object whose name ends in a slash."""
    upload(s3, write_parquet(tmp_path / "a.parquet", rows))
    client = boto3.client("s3")
    for key in ("in/", "in/deep/"):
        client.put_object(Bucket=s3.bucket, Key=key, Body=b"")
    client.close()
    for number, source in enumerate(("in", "in/", "in/*")):
        summary = run_job(s3.uri(source), tmp_path / f"out{number}", model)
        assert summary.totals.scored == len(rows)


@pytest.mark.parametrize(
    ("source", "target", "code", "sentence"),
    [
        ("s3://no-such-bucket/in", "out", 2, "does not exist"),
        ("s3://{bucket}/absent", "out", 2, "does not exist"),
        ("in.parquet", "s3://no-such-bucket/out", 7, "no such bucket: s3://no-such-bucket/out"),
    ],
)
def test_what_a_bucket_lacks(
    source: str, target: str, code: int, sentence: str, tmp_path: Path, model: Path, rows: list[Row], s3: S3Bucket,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_parquet(tmp_path / "in.parquet", rows)
    flags = ["--input", source.format(bucket=s3.bucket), "--output", target, "--model", str(model)]
    assert main(["rerank", *flags]) == code
    assert sentence in capsys.readouterr().err


def test_no_permission(
    tmp_path: Path, model: Path, rows: list[Row], s3: S3Bucket, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The server answers 403 to a user who may do nothing."""
    write_parquet(tmp_path / "in.parquet", rows)
    upload(s3, tmp_path / "in.parquet")
    iam = boto3.client("iam")
    iam.create_user(UserName="nobody")
    key = iam.create_access_key(UserName="nobody")["AccessKey"]
    iam.close()
    with denying(s3):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        for source, target in ((s3.uri("in"), str(tmp_path / "out")), (str(tmp_path / "in.parquet"), s3.uri("out"))):
            assert main(["rerank", "--input", source, "--output", target, "--model", str(model)]) == 7
            assert "no permission" in capsys.readouterr().err.lower()
