"""The same promises on a real object store that is no emulator: Ceph's RADOS gateway."""

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pytest

from rankmill.errors import OutputBusyError, StorageError
from rankmill.settings.storage import StorageSettings
from rankmill.storage.lease import acquire, held, look
from rankmill.storage.probe import require_atomic_create
from rankmill.storage.retry import Patience
from rankmill.storage.store import Store
from rankmill.tables.locate import find_files, open_file
from tests.ceph_gateway import ACCESS_KEY, SECRET_KEY, missing_programs, running_gateway
from tests.fault_proxy import Fault, FaultProxy, running_fault_proxy
from tests.s3_server import CLEARED, s3_environment

pytestmark = [
    pytest.mark.slow,
    pytest.mark.realstore,
    pytest.mark.skipif(
        bool(missing_programs()),
        reason=f"Ceph is not installed here ({', '.join(missing_programs())} missing): "
        "apt-get install --no-install-recommends ceph-mon ceph-osd radosgw",
    ),
]


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="rgw-", dir="/tmp"))  # a socket's path has 107 characters
    try:
        with running_gateway(folder / "c") as endpoint:
            yield endpoint
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def uri(gateway: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in CLEARED:
        monkeypatch.delenv(name, raising=False)
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    for name, value in {**s3_environment(gateway), **keys}.items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{uuid.uuid4().hex}"
    client = boto3.client("s3")
    client.create_bucket(Bucket=bucket)
    client.close()
    return f"s3://{bucket}"


def test_put_if_absent_is_atomic(uri: str) -> None:
    for number in range(10):
        require_atomic_create(Store(f"{uri}/out{number}"))


def test_lost_answers_and_storms(uri: str, gateway: str) -> None:
    with running_fault_proxy(FaultProxy(gateway)) as proxy:
        patience = Patience(seconds=60, request_seconds=2, first_pause=0.01, longest_pause=0.2)
        store = Store(f"{uri}/out", StorageSettings(endpoint=proxy.url), patience)
        proxy.faults.append(Fault("reset_after", "PUT"))
        assert store.create("a/key", bytes(300_000), {"rows": "17"})
        assert not store.create("a/key", b"")
        found = store.head("a/key")
        assert found is not None
        assert (found.size, found.metadata["rows"]) == (300_000, "17")
        proxy.probability = 0.2
        for number in range(40):
            assert store.create(f"b/{number:02}", b"body")
            assert store.read(f"b/{number:02}") == b"body"
        assert len(store.keys("b")) == 40
        assert sum(proxy.struck().values()) > 5


def test_versions_permissions_and_the_lease(uri: str, gateway: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(f"{uri}/out")
    store.create("a.parquet", b"old")
    found = store.head("a.parquet")
    assert found is not None
    # by a setting: s3fs keeps a client for what the environment said first, and other tests mean another server
    (file,) = find_files(f"{uri}/out", StorageSettings(endpoint=gateway))
    assert open_file(file).read() == store.read("a.parquet", if_match=found.etag) == b"old"
    with pytest.raises(StorageError, match="was replaced"):
        store.read("a.parquet", if_match='"00000000000000000000000000000000"')
    with held(store, 2), pytest.raises(OutputBusyError):
        acquire(store, 30)
    assert look(store).released
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match=r"No permission to write .*: 403 SignatureDoesNotMatch"):
        Store(f"{uri}/out").create("key", b"")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    with pytest.raises(StorageError, match="no such bucket"):
        Store("s3://absent-bucket/out").create("key", b"")
