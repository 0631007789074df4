"""One live run at a time: what a second one is told, and what a run that was paused finds."""

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import cast

import orjson
import pytest

from rankmill.errors import OutputBusyError, StorageError
from rankmill.settings.storage import StorageSettings
from rankmill.storage.lease import LEASES, Lease, Sighting, acquire, held, holder_of, look
from rankmill.storage.process import has_ended, this_process
from rankmill.storage.retry import Patience
from rankmill.storage.store import Store
from tests.conftest import S3Bucket
from tests.fault_proxy import Fault, FaultProxy, running_fault_proxy

LIBRARY = Path(__file__).parents[2] / "lib"
TTL = 8.0
"""By the tests' own clock; it costs no time."""


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return Store(str(tmp_path / "out"))
    return Store(cast("S3Bucket", request.getfixturevalue("s3")).uri("out"))


class Time:
    """A clock of its own, and what happens while somebody sleeps."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.now = 1_000.0
        self._meanwhile = meanwhile

    def sleep(self, seconds: float) -> None:
        self._meanwhile()
        self.now += seconds

    def acquire(self, store: Store) -> Lease:
        return acquire(store, TTL, clock=lambda: self.now, sleep=self.sleep)


def elsewhere(store: Store, epoch: int) -> None:
    """Make the holder of an epoch a process on another machine, of which nothing can be known but its heartbeats."""
    holder = holder_of(store, epoch)
    moved = replace(holder, process=replace(holder.process, host="far-away", pid=4711, machine="another"))
    key = f"{LEASES}/{epoch:08}.json"
    store.delete([key])
    assert store.create(key, moved.to_json())


def test_epochs_count_up(store: Store) -> None:
    for epoch in (1, 2, 3):
        lease = Time().acquire(store)
        assert (lease.epoch, look(store)) == (epoch, Sighting(epoch))
        lease.release()
        assert look(store) == Sighting(epoch, released=True)


def test_a_live_holder_is_named_and_left_alone(store: Store) -> None:
    lease = Time().acquire(store)
    elsewhere(store, 1)
    for _ in range(60):
        lease.beat()
    waiting = Time(lease.beat)
    with pytest.raises(OutputBusyError) as refusal:
        waiting.acquire(store)
    assert waiting.now - 1_000 < TTL
    assert str(refusal.value) == (
        f"{store.uri} is held by a live run, process 4711 on far-away, at work for about 2 min. Wait until it is done, "
        "or stop it; then the same command continues."
    )
    lease.check()
    assert look(store).epoch == 1


def test_a_silent_holder_is_waited_for_and_then_taken_over_from(store: Store) -> None:
    """F10."""
    zombie = Time().acquire(store)
    elsewhere(store, 1)
    zombie.beat()
    waiting = Time()
    lease = waiting.acquire(store)
    assert lease.epoch == 2
    assert waiting.now - 1_000 >= TTL
    zombie.check()  # paused, it cannot know yet
    zombie.beat()
    with pytest.raises(OutputBusyError, match=f"out was taken over by a live run, process {os.getpid()} on "):
        zombie.check()
    zombie.release()
    assert look(store) == Sighting(2), "a fenced run must not release what it does not hold"
    lease.beat()
    lease.check()


def test_a_holder_that_releases_is_not_waited_for_any_longer(store: Store) -> None:
    lease = Time().acquire(store)
    waiting = Time(lease.release)
    assert waiting.acquire(store).epoch == 2
    assert waiting.now - 1_000 < TTL


def test_clocks_are_never_compared(store: Store) -> None:
    """F16: nothing that a run writes says what time it is."""
    before = Time()
    before.now = 1e9
    lease = before.acquire(store)
    lease.beat()
    for key in store.keys(LEASES):
        body = store.read(key)
        if body:
            assert set(orjson.loads(body)) == {"run", "process", "beat_seconds"}
            assert orjson.loads(body)["process"]["started"].isdecimal(), "ticks since the boot, compared on one machine"


def test_of_many_that_come_at_once_one_gets_it(store: Store) -> None:
    """F9; the one that got it goes on until all others were refused."""
    refused = threading.Barrier(6)

    def try_once(_: int) -> int | None:
        try:
            with held(Store(store.uri), 4) as lease:
                refused.wait(60)
                lease.check()
                return lease.epoch
        except OutputBusyError:
            refused.wait(60)
            return None

    with ThreadPoolExecutor(6) as pool:
        assert [found for found in pool.map(try_once, range(6)) if found is not None] == [1]
    assert look(store).released


def test_heartbeats_leave_one_object_or_none_can_be_deleted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = Time().acquire(store)
    for _ in range(5):
        lease.beat()
    assert [key for key in store.keys(LEASES) if "beat" in key] == [f"{LEASES}/00000001.beat-00000005"]

    asked: list[list[str]] = []

    def refuse(_: Store, keys: list[str]) -> None:
        asked.append(keys)
        raise StorageError("No permission to delete")

    monkeypatch.setattr(Store, "delete", refuse)
    for _ in range(3):
        lease.beat()
    assert len(asked) == 1, "who may not delete is not asked to again"
    assert look(store) == Sighting(1, 8)


@pytest.fixture
def killed_holder(tmp_path: Path) -> Store:
    """A folder whose holder, a process of this machine, was killed."""
    code = """
        import os, signal, sys
        from rankmill.storage.lease import held
        from rankmill.storage.store import Store
        with held(Store(sys.argv[1]), 600):
            os.kill(os.getpid(), signal.SIGKILL)
    """
    output = str(tmp_path / "out")
    command = [sys.executable, "-c", textwrap.dedent(code), output]
    assert subprocess.run(command, env={"PYTHONPATH": str(LIBRARY)}, check=False).returncode == -9
    return Store(output)


def test_a_killed_holder_of_this_machine_is_not_waited_for(killed_holder: Store) -> None:
    assert has_ended(holder_of(killed_holder, 1).process)
    with held(killed_holder, 600) as lease:  # a test that had to wait would run out of time
        assert lease.epoch == 2


def test_what_can_be_known_of_a_process() -> None:
    here = this_process()
    assert not has_ended(here)
    assert has_ended(replace(here, started="1")), "its PID was used again"
    assert not has_ended(replace(here, started="1", machine="another"))
    assert not has_ended(replace(here, started="1", machine="")), "not Linux"


def test_heartbeats_come_by_themselves_and_end_with_the_block(store: Store) -> None:
    with held(store, 0.4), pytest.raises(OutputBusyError):
        acquire(store, 8)  # sees the first beat and leaves
    assert look(store).released
    seen = look(store)
    assert seen.beats >= 1


@pytest.mark.slow
def test_trouble_with_heartbeats_does_not_end_a_run(s3: S3Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_fault_proxy(FaultProxy(s3.endpoint)) as proxy:
        patience = Patience(seconds=20, request_seconds=0.5, first_pause=0.01, longest_pause=0.05)
        store = Store(s3.uri("out"), StorageSettings(endpoint=proxy.url), patience)
        lease = Time().acquire(store)
        proxy.faults.append(Fault("reset_after", "PUT"))
        lease.beat()
        lease.check()
        proxy.faults.append(Fault("slow_down", "PUT|GET", times=1_000_000))
        with pytest.raises(StorageError, match="tried for 4 s"):
            lease.beat()
        lease.check()
        proxy.faults.clear()
        lease.beat()
        assert look(store) == Sighting(1, 2)
        proxy.faults.append(Fault("slow_down", "PUT", times=1_000_000))
        monkeypatch.setattr(lease._store, "patience", replace(patience, seconds=0.2))
        lease.release()
        assert not look(store).released
