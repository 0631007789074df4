"""The same job from bucket to bucket, and what a bucket can refuse."""

import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pyarrow.parquet as pq
import pytest

from rankmill.batch import job as batch
from rankmill.batch.executor import InProcess
from rankmill.batch.receipts import Receipt
from rankmill.batch.stages import Encode, Write
from rankmill.cli.main import main
from rankmill.errors import InputError, StorageError
from rankmill.scoring.options import ScorerOptions
from tests.batch.conftest import Row, write_jsonl, write_parquet
from tests.batch.jobs import read_rankings, run_job, run_on_ray, settings_for
from tests.batch.reader import polled
from tests.conftest import S3Bucket
from tests.fault_proxy import Fault, FaultProxy, running_fault_proxy


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


def write_small_groups(folder: Path, rows: list[Row]) -> Path:
    return write_parquet(folder / "a.parquet", rows, row_group_size=7)


def write_lines(folder: Path, rows: list[Row]) -> Path:
    return write_jsonl(folder / "a.jsonl", [{**row, "text": row["text"] * 30} for row in rows])


def upload(s3: S3Bucket, *paths: Path) -> None:
    client = boto3.client("s3")
    for path in paths:
        client.upload_file(str(path), s3.bucket, f"in/{path.name}")
    client.close()


@pytest.mark.usefixtures("local_ray")
def test_bucket_to_bucket_on_ray(tmp_path: Path, rows: list[Row], s3: S3Bucket) -> None:
    model = "python:tests.batch.counting_scorer:score"  # workers need not import torch for it
    (tmp_path / "in").mkdir()
    upload(
        s3,
        *(
            write_parquet(tmp_path / "in" / name, part)
            for name, part in (("a.parquet", rows[:90]), ("b.parquet", rows[90:]))
        ),
    )
    run = s3.uri("run.trec.gz")
    summary = run_on_ray(s3.uri("in"), s3.uri("out/y"), model, top_k=10, workers=1, cpus_per_worker=1, trec_run=run)
    assert summary.output == s3.uri("out/y")
    run_job(tmp_path / "in", tmp_path / "out", model, top_k=10)
    assert read_rankings(s3.uri("out/y")) == read_rankings(tmp_path / "out")
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


@pytest.mark.parametrize("write", [write_small_groups, write_lines])
def test_a_file_replaced_while_it_is_read(
    write: Callable[[Path, list[Row]], Path], tmp_path: Path, model: Path, rows: list[Row], s3: S3Bucket
) -> None:
    """F13: in the middle of the pass over it, by one of the same rows."""
    source = write(tmp_path, rows)
    upload(s3, source)
    job = batch.prepare(settings_for(s3.uri("in"), s3.uri("out"), model))
    client = boto3.client("s3")

    class Meddling(InProcess):
        def run_shards(self, encode: Encode, scorer: ScorerOptions, write: Write) -> Generator[Receipt]:
            receipts = InProcess().run_shards(encode, scorer, write)
            yield next(receipts)
            client.put_object(Bucket=s3.bucket, Key=f"in/{source.name}", Body=source.read_bytes() + b"\n")
            yield from receipts

    with pytest.raises(InputError, match=r"The input changed while the job ran: s3://\S+ was replaced"):
        batch.run(job, Meddling())
    client.close()


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("times", [2, 1_000_000])
def test_a_task_whose_store_fails_is_repeated(
    times: int, tmp_path: Path, model: Path, rows: list[Row], s3: S3Bucket
) -> None:
    """F5, F18: what the store itself does not repeat, or no longer, Ray does: a few times, then the job fails."""
    upload(s3, write_parquet(tmp_path / "in.parquet", rows))
    with running_fault_proxy(FaultProxy(s3.endpoint)) as proxy, polled(s3.uri("out"), s3.endpoint):

        def deny() -> None:
            proxy.faults += [
                Fault("denied", "PUT", "/out/part-000003", times=times),
                Fault("denied", "GET", "/in/in.parquet", times=1),
            ]

        proxy.faults.append(Fault("reset_after", "PUT", "/out/_rankmill/job.json", then=deny))  # planned and read
        run = partial(
            run_on_ray,
            s3.uri("in"),
            s3.uri("out"),
            model,
            workers=1,
            cpus_per_worker=1,
            storage={"endpoint": proxy.url},
        )
        if times == 2:
            assert run().totals.scored == len(rows)
            return
        with pytest.raises(StorageError, match=r"No permission to write .*part-000003.parquet: 403 AccessDenied"):
            run()
        assert proxy.faults[1].hits == 8, "four times two: each asks for fresh credentials once"


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
