"""What a new user gets wrong about a store: each is said at once or while it is waited for, and by its name."""

import http.server
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankmill.errors import StorageError
from rankmill.settings.storage import StorageSettings
from rankmill.storage.probe import PROBES, require_writable
from rankmill.storage.retry import Patience
from rankmill.storage.store import Store
from tests.conftest import S3Bucket
from tests.fault_proxy import Fault, FaultProxy, running_fault_proxy


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(("host", "reason"), [("127.0.0.1", "Connection refused"), ("no.such.invalid", "lookup")])
def test_what_is_waited_for_is_said_once(
    host: str, reason: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankmill.storage.retry._SILENT_SECONDS", 0.2)
    endpoint = f"http://{host}:{closed_port()}"
    patience = Patience(seconds=2, first_pause=0.05, longest_pause=0.1)
    store = Store(f"s3://{host}/out", StorageSettings(endpoint=endpoint), patience)
    with caplog.at_level(logging.INFO, "rankmill"), pytest.raises(StorageError, match=reason):
        store.create("key", b"")
    (said,) = caplog.messages
    assert said.startswith(f"s3://{host}/out: PUT {endpoint}/{host}/out/key: ")
    assert reason in said
    assert said.endswith("; trying again for up to 2 s (--storage.retry-seconds)")


def test_trouble_that_passes_soon_is_not_worth_a_word(s3: S3Bucket, caplog: pytest.LogCaptureFixture) -> None:
    with running_fault_proxy(FaultProxy(s3.endpoint)) as proxy, caplog.at_level(logging.INFO, "rankmill"):
        proxy.faults.append(Fault("slow_down", times=2))
        patience = Patience(seconds=30, first_pause=0.01, longest_pause=0.1)
        assert Store(s3.uri("out"), StorageSettings(endpoint=proxy.url), patience).create("key", b"")
    assert not caplog.messages


class _Elsewhere(http.server.BaseHTTPRequestHandler):
    """Answers as S3 does where a bucket lies in another region: 301, without a Location."""

    asked: list[str]

    def _answer(self) -> None:
        self.asked.append(self.command)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(301)
        self.send_header("x-amz-bucket-region", "eu-west-1")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_PUT = do_HEAD = _answer  # noqa: N815 - the names that http.server looks for

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """The endpoint, and the requests it got."""
    _Elsewhere.asked = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Elsewhere) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", _Elsewhere.asked
        server.shutdown()


@pytest.mark.usefixtures("s3")
def test_another_region_is_named_and_nothing_is_repeated(elsewhere: tuple[str, list[str]]) -> None:
    endpoint, asked = elsewhere
    with pytest.raises(StorageError, match=r"Could not write s3://b/out/key: .* another region .*--storage\.region"):
        Store("s3://b/out", StorageSettings(endpoint=endpoint)).create("key", b"")
    with pytest.raises(StorageError, match=r"--storage\.region"):
        Store("s3://b/out", StorageSettings(endpoint=endpoint)).head("key")
    assert asked == ["PUT", "HEAD"]


def test_no_credentials_are_not_a_lack_of_permission(
    s3: S3Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without keys obstore would ask the machine's metadata by itself, whatever the environment says."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StorageError, match=r"^No S3 credentials were found: .*AWS_ACCESS_KEY_ID"):
        Store(s3.uri("out")).read("key")


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(
    ("uri", "key", "said"),
    [
        ("s3://b/in", "x//y.parquet", r"Could not read s3://b/in/x//y\.parquet: .*empty path segment"),
        ("s3://b/in//x", "y.parquet", "s3://b cannot be opened: .*empty path segment"),
        ("az://b/x", "y.parquet", "az://b cannot be opened: .*Account must be specified"),
    ],
)
def test_what_the_client_refuses_is_a_sentence(uri: str, key: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_CONNECTION_STRING"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StorageError, match=said):
        Store(uri).read(key)


class TestWriting:
    """Whether anything can be written, before a job begins."""

    def test_no_trace_is_left(self, s3: S3Bucket, tmp_path: Path) -> None:
        for store in (Store(s3.uri("out")), Store(str(tmp_path / "a" / "out")), Store(str(tmp_path))):
            require_writable(store)
            assert store.sizes() == {}
        assert list(tmp_path.iterdir()) == []

    def test_what_cannot_be_made_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StorageError, match=r"Could not write .*/file/out/.*Not a directory"):
            require_writable(Store(str(tmp_path / "file" / "out")))
        with pytest.raises(StorageError, match=r"Could not write /proc/no-such/out/.*: it cannot be made there"):
            require_writable(Store("/proc/no-such/out"))

    def test_a_store_that_denies_writing_is_refused_and_one_that_denies_deleting_is_not(self, s3: S3Bucket) -> None:
        with running_fault_proxy(FaultProxy(s3.endpoint)) as proxy:
            store = Store(s3.uri("out"), StorageSettings(endpoint=proxy.url))
            proxy.faults.append(Fault("denied", "POST|DELETE", times=100))
            require_writable(store)
            assert len(store.keys(PROBES)) == 1, "`rankmill gc` takes it away"
            proxy.faults.append(Fault("denied", "PUT", times=100))
            with pytest.raises(StorageError, match=r"No permission to write .*: 403 AccessDenied"):
                require_writable(store)
