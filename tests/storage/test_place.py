"""One place says where a store is and who signs, for inputs and outputs alike; and no secret gets out of it."""

import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from rankmill.cli.main import main
from rankmill.errors import InputError, StorageError, UsageError
from rankmill.settings.load import load_settings
from rankmill.settings.rerank import RerankSettings
from rankmill.settings.storage import StorageSettings
from rankmill.storage.store import Store
from rankmill.tables.footers import read_footer
from rankmill.tables.locate import InputFile, find_files, open_file
from tests.conftest import S3Bucket
from tests.fault_proxy import FaultProxy, running_fault_proxy

NAMED = pa.table({"query_id": ["q"], "query": ["a"], "doc_id": ["d"], "text": ["b"]})


@pytest.fixture
def far(s3: S3Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A store that the environment knows nothing of: it names an endpoint where nobody listens."""
    (tmp_path / "config").write_text("[profile far]\nregion = eu-west-3\n")
    (tmp_path / "keys").write_text("[far]\naws_access_key_id = AKIAFAR\naws_secret_access_key = canary-9f3b\n")
    pq.write_table(pa.table({"query_id": ["q"]}), tmp_path / "in.parquet")
    client = boto3.client("s3")
    client.upload_file(str(tmp_path / "in.parquet"), s3.bucket, "in/a.parquet")
    client.close()
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with running_fault_proxy(FaultProxy(s3.endpoint)) as proxy:
        yield proxy


def test_inputs_and_outputs_go_to_the_same_endpoint_with_the_same_keys(far: FaultProxy, s3: S3Bucket) -> None:
    storage = StorageSettings(endpoint=far.url, profile="far")
    assert Store(s3.uri("out"), storage).create("key", b"body")
    assert far.signers == {"AKIAFAR"}
    written = len(far.requests)
    (file,) = find_files(s3.uri("in"), storage)
    assert read_footer(file).rows == 1
    assert len(far.requests) > written
    assert far.signers == {"AKIAFAR"}


def test_what_is_sent_to_workers_names_the_place_and_holds_no_secret(far: FaultProxy, s3: S3Bucket) -> None:
    storage = StorageSettings(endpoint=far.url, profile="far", retry_seconds=7)
    store = Store(s3.uri("out"), storage)
    store.create("key", b"body")  # its credentials are resolved
    (file,) = find_files(s3.uri("in"), storage)
    sent = pickle.dumps((store, file))
    assert b"canary" not in sent
    assert b"AKIAFAR" not in sent
    there: tuple[Store, InputFile] = pickle.loads(sent)  # noqa: S301 - our own bytes
    assert there[0].read("key") == b"body"
    assert there[0].patience.seconds == 7
    assert open_file(there[1]).read(4) == b"PAR1"


def test_a_file_that_was_replaced_is_not_opened(s3: S3Bucket, tmp_path: Path) -> None:
    """F13."""
    client = boto3.client("s3")
    for source in (s3.uri("in"), str(tmp_path / "in")):
        local = tmp_path / "in" / "a.parquet"
        local.parent.mkdir(exist_ok=True)
        for number in range(2):
            pq.write_table(pa.table({"query_id": [f"q{number}"]}), local)
            os.utime(local, (1e9 + number, 1e9 + number))
            client.upload_file(str(local), s3.bucket, "in/a.parquet")
            if number == 0:
                (file,) = find_files(source)
                assert read_footer(file).rows == 1
        with pytest.raises(InputError, match=r"The input changed while the job ran: .*a\.parquet was replaced"):
            read_footer(file)
        assert read_footer(replace(file, version="")).rows == 1, "the control: nothing else would notice"
    client.close()


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA:canary@bucket/in",
        "s3://bucket/in?access_key=canary",
        "s3://bucket/in?endpoint_override=x&secret_key=canary",
        "s3://bucket/in/a.parquet?X-Amz-Signature=canary",
        "https://user:canary@host/in.parquet",
        "abfs://user:canary@account/in",
        "az://container/in?sig=canary",
    ],
)
def test_uris_with_secrets_are_refused_and_not_repeated(
    uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="A URI ends up in manifests and logs"):
        Store(uri)
    for flags in (["--input", uri, "--output", str(tmp_path / "out")], ["--input", str(tmp_path), "--output", uri]):
        pq.write_table(NAMED, tmp_path / "in.parquet")
        assert main(["rerank", *flags]) == 2
        message = capsys.readouterr().err
        assert "was given with" in message
        assert "canary" not in message


@pytest.mark.parametrize(
    "uri",
    ["s3://bucket/a@b?c", "/local/user:name@host?key=1", "abfs://container@account/in", "s3://bucket/in?versionId=3"],
)
def test_uris_without_secrets_are_not(uri: str) -> None:
    assert Store(uri).uri == uri


@pytest.mark.parametrize(
    "endpoint", ["localhost:9000", "https://user:canary@host", "http://host/?X-Amz-Signature=canary", "ftp://host", ""]
)
def test_an_endpoint_is_a_plain_url(endpoint: str) -> None:
    with pytest.raises(ValidationError, match=r"--storage\.endpoint must"):
        StorageSettings(endpoint=endpoint)


def test_flags() -> None:
    flags = ["--input", "in", "--output", "out", "--storage.endpoint", "http://host:9000", "--storage.profile", "far"]
    settings = load_settings(RerankSettings, [*flags, "--storage.region", "eu", "--allow-unsafe-store"], "rerank")
    assert settings.storage == StorageSettings(endpoint="http://host:9000", profile="far", region="eu")
    assert settings.allow_unsafe_store


@pytest.mark.usefixtures("far")
def test_a_profile_that_does_not_exist_is_named() -> None:
    storage = StorageSettings(profile="near")
    with pytest.raises(StorageError, match="near"):
        Store("s3://bucket/out", storage).create("key", b"")
    with pytest.raises(StorageError, match="near"):
        find_files("s3://bucket/in", storage)
