"""What networks and overloaded stores do, in front of a real S3 server; nothing of it is taken for an answer."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rankmill.errors import StorageError
from rankmill.settings.storage import StorageSettings
from rankmill.storage.probe import PROBES, flaw_of, require_atomic_create
from rankmill.storage.retry import Patience, TransientError, patiently
from rankmill.storage.store import TOKEN, Store
from tests.conftest import S3Bucket
from tests.fault_proxy import Fault, FaultProxy, Kind, running_fault_proxy

PATIENT = Patience(seconds=30, request_seconds=0.5, first_pause=0.01, longest_pause=0.1)
HASTY = Patience(seconds=0.5, request_seconds=0.5, first_pause=0.01, longest_pause=0.05)


@pytest.fixture
def proxy(s3: S3Bucket) -> Iterator[FaultProxy]:
    with running_fault_proxy(FaultProxy(s3.endpoint)) as running:
        yield running


@pytest.fixture
def store(s3: S3Bucket, proxy: FaultProxy) -> Store:
    """The output, seen through the proxy."""
    return Store(s3.uri("out"), StorageSettings(endpoint=proxy.url), PATIENT)


@pytest.mark.parametrize("kind", ["slow_down", "error_500", "conflict_409", "reset_before", "reset_after"])
def test_a_create_wins_through_trouble(kind: Kind, store: Store, proxy: FaultProxy, s3: S3Bucket) -> None:
    """F5, F6, F7."""
    proxy.faults.append(Fault(kind, "PUT", times=3))
    assert store.create("key", b"body")
    assert proxy.struck()[kind] >= 1
    assert Store(s3.uri("out")).read("key") == b"body"


@pytest.mark.parametrize("kind", ["slow_down", "error_500", "conflict_409", "reset_before", "reset_after"])
def test_trouble_does_not_win_what_another_has_won(kind: Kind, store: Store, proxy: FaultProxy, s3: S3Bucket) -> None:
    assert Store(s3.uri("out")).create("key", b"first")
    proxy.faults.append(Fault(kind, "PUT", times=2))
    assert not store.create("key", b"second")
    assert proxy.struck()[kind] >= 1
    assert store.read("key") == b"first"


def test_a_lost_acknowledgement_is_known_by_the_token(store: Store, proxy: FaultProxy) -> None:
    """F7: the first PUT arrives, its answer does not; the second is refused; the HEAD says whose the object is."""
    proxy.faults.append(Fault("reset_after", "PUT"))
    assert store.create("key", b"body", {"rows": "17"})
    assert [method for method, _, _ in proxy.requests] == ["PUT", "PUT", "HEAD"]
    found = store.head("key")
    assert found is not None
    assert (found.size, found.metadata["rows"], len(found.metadata[TOKEN])) == (4, "17", 32)


def test_without_the_check_of_the_token_a_writer_believes_that_it_lost(
    store: Store, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control for the test above: it does depend on the check."""
    monkeypatch.setattr(Store, "_is_mine", lambda *_: False)
    proxy.faults.append(Fault("reset_after", "PUT"))
    assert not store.create("key", b"body")


@pytest.mark.parametrize("kind", ["slow_down", "reset_before", "reset_after", "truncate", "stall"])
@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda store: store.read("a/key") == bytes(100_000), id="read"),
        pytest.param(lambda store: store.read_if_present("a/key") == bytes(100_000), id="read_if_present"),
        pytest.param(lambda store: store.keys("a") == ["a/key"], id="keys"),
        pytest.param(lambda store: store.top_level() == ["a/"], id="top_level"),
    ],
)
def test_reading_and_listing_win_through_trouble(
    kind: Kind, ask: Callable[[Store], bool], store: Store, proxy: FaultProxy
) -> None:
    """F5, F6."""
    store.create("a/key", bytes(100_000))
    proxy.faults.append(Fault(kind, "GET", times=2))
    assert ask(store)
    assert proxy.struck()[kind] == 2


def test_the_deadline_ends_the_waiting(s3: S3Bucket, proxy: FaultProxy) -> None:
    proxy.faults.append(Fault("slow_down", times=1_000_000))
    store = Store(s3.uri("out"), StorageSettings(endpoint=proxy.url), HASTY)
    with pytest.raises(
        StorageError, match=r"Could not write s3://.*/out/key, .* tried for 0\.5 s: 503 SlowDown inject"
    ):
        store.create("key", b"")
    assert len(proxy.requests) > 2


def test_credentials_that_ran_out_are_asked_for_again_once(store: Store, proxy: FaultProxy) -> None:
    """F18."""
    proxy.faults.append(Fault("expired", "PUT"))
    assert store.create("key", b"body")
    proxy.faults.append(Fault("expired", "PUT", times=100))
    with pytest.raises(StorageError, match=r"No permission to write .*/out/other: 400 ExpiredToken"):
        store.create("other", b"body")
    assert proxy.struck()["expired"] == 3


def test_an_object_that_was_replaced_is_not_read(s3: S3Bucket, tmp_path: Path) -> None:
    for store in (Store(s3.uri("out")), Store(str(tmp_path))):
        store.create("key", b"old")
        before = store.head("key")
        assert before is not None
        assert store.read("key", if_match=before.etag) == b"old"
        store.delete(["key"])
        assert store.head("key") is None
        store.create("key", b"new one")
        with pytest.raises(StorageError, match="key was replaced after it was looked at"):
            store.read("key", if_match=before.etag)


def test_more_keys_than_a_page_holds(store: Store, proxy: FaultProxy) -> None:
    """F21; the second page of the listing comes at the third attempt."""
    client_keys = [f"many/{number:05}" for number in range(1100)]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda key: store.create(key, b""), client_keys))
    proxy.faults.append(Fault("slow_down", "GET", skip=1, times=1))
    assert store.keys("many") == client_keys


class TestProbe:
    """Whether put-if-absent is one."""

    def test_a_real_store_and_a_disk_pass_and_keep_nothing(self, store: Store, tmp_path: Path) -> None:
        for folder in (store, Store(str(tmp_path / "out"))):
            require_atomic_create(folder)
            assert folder.keys(PROBES) == []

    def test_trouble_is_not_taken_for_a_flaw(self, store: Store, proxy: FaultProxy) -> None:
        proxy.probability = 0.2
        assert flaw_of(store) is None
        assert sum(proxy.struck().values()) > 5

    def test_a_store_that_ignores_the_condition_is_refused(
        self, store: Store, proxy: FaultProxy, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """F17."""
        proxy.dropped_headers = ["if-none-match"]
        with pytest.raises(
            StorageError, match=r"out cannot keep a job safe: of 8 writers .*, \d were told.*--allow-uns"
        ):
            require_atomic_create(store)
        monkeypatch.setattr(logging.getLogger("rankmill"), "propagate", True)
        require_atomic_create(store, allow_unsafe=True)
        assert "out cannot keep a job safe: of 8 writers" in caplog.text

    @pytest.mark.parametrize("kind", ["denied", "denied_keys"])
    def test_a_store_that_denies_deleting_can_be_used(self, kind: Kind, store: Store, proxy: FaultProxy) -> None:
        proxy.faults.append(Fault(kind, "POST|DELETE", times=1_000))
        require_atomic_create(store)
        assert len(store.keys(PROBES)) == 4
        assert proxy.struck()[kind] == 2, "once more with fresh credentials, and no more"


def test_pauses_grow_with_jitter_and_end_at_the_deadline() -> None:
    now, pauses = [0.0], []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    def attempt() -> None:
        now[0] += 1
        raise TransientError

    with pytest.raises(TransientError):
        patiently(attempt, Patience(60, 1, 0.1, 5), clock=lambda: now[0], sleep=sleep)
    assert now[0] <= 61
    assert len(set(pauses)) == len(pauses)
    assert max(pauses[:4]) <= 0.8
    assert 1 < max(pauses) <= 5
