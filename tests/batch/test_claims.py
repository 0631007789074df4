"""What workers know of each other's pairs: those that are scored, and those that somebody is at work on."""

import hashlib
import tempfile
import threading
import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray
from numpy.typing import NDArray

from rankmill.batch import memory as memory_module
from rankmill.batch.executor import InProcess
from rankmill.batch.freight import EncodedShard, ScoredShard
from rankmill.batch.guarded import GuardedScore
from rankmill.batch.job import prepare
from rankmill.batch.memory import ENTRY, Entries, Memory
from rankmill.batch.plan import read_units
from rankmill.batch.planning import planned
from rankmill.batch.read import Source
from rankmill.batch.repeats import put_back
from rankmill.batch.score_once import keys_of, score_once
from rankmill.batch.scratch import Scratch
from rankmill.batch.shared_memory import SharedMemory, memory_for
from rankmill.batch.stages import Encode
from tests.batch.conftest import Row, write_parquet
from tests.batch.jobs import settings_for

PATIENCE = 30.0
TEXT = pa.string()


def keys(numbers: range) -> NDArray[np.uint64]:
    digests = b"".join(hashlib.blake2b(str(number).encode(), digest_size=16).digest() for number in numbers)
    return np.frombuffer(digests, "<u8").reshape(-1, 2)


def entries(numbers: range) -> Entries:
    """Pairs, each with a key and a logit made of its number."""
    found = np.zeros(len(numbers), ENTRY)
    found["low"], found["high"] = keys(numbers).T
    found["logit"] = numbers
    return found


def shard(index: int, numbers: range) -> pa.Table:
    """A shard as a row; each pair has one token, its number."""
    one = np.ones(len(numbers), dtype=np.int32)
    pairs = pa.table(
        {
            "pair_key": pa.array([key.tobytes() for key in keys(numbers)], pa.binary(16)),
            "position": np.arange(len(numbers)),
            "length": one,
            "document_start": one,
            "truncated": one > 1,
        }
    )
    rejected = pa.table(
        {"pair_key": pa.array([], pa.binary(16)), "reason": pa.array([], TEXT), "detail": pa.array([], TEXT)}
    )
    return EncodedShard(index, pairs, rejected, np.array(numbers, dtype=np.int32)).to_row()


class Scoring:
    """Scores a pair with its number; notes which it was asked for, and waits before that where it is told to."""

    def __init__(self, before: threading.Barrier | None = None) -> None:
        self.asked: list[int] = []
        self._before = before

    def __call__(self, waiting: EncodedShard, row: pa.Table) -> pa.Table:
        if self._before is not None:
            self._before.wait(PATIENCE)
        assert EncodedShard.from_row(row).pairs.equals(waiting.pairs)
        self.asked += waiting.token_ids.tolist()
        logits = pa.array(waiting.token_ids.astype(np.float32))
        return ScoredShard(
            waiting.index, waiting.pairs.append_column("logit", logits), waiting.rejected, 0.0, waiting.known
        ).to_row()


def logits(row: pa.Table) -> list[float]:
    """Of a scored shard, in the order of its pairs."""
    found: list[float] = put_back(ScoredShard.from_row(row)).pairs.column("logit").to_pylist()
    return found


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are short."""
    monkeypatch.setattr(memory_module, "LEAST_PATIENCE", 0.2)


def test_what_is_in_other_hands_is_neither_known_nor_claimed_until_it_is_told() -> None:
    memory = Memory()
    first = memory.ask(keys(range(10)), shard=0)
    assert (len(first.known), len(first.elsewhere)) == (0, 0)
    second = memory.ask(keys(range(5, 15)), shard=1)
    assert (second.known.tolist(), second.elsewhere.tolist()) == ([], [0, 1, 2, 3, 4])
    memory.remember(entries(range(8)), shard=0)  # 8 and 9 got no score
    third = memory.ask(keys(range(5, 15)), shard=2)
    assert (third.known.tolist(), third.entries["logit"].tolist()) == ([0, 1, 2], [5.0, 6.0, 7.0])
    assert third.elsewhere.tolist() == [5, 6, 7, 8, 9], "8 and 9 are free, 10 to 14 those of shard 1"
    assert len(memory) == 15


def test_a_shard_that_is_tried_again_does_not_wait_for_its_own_claims() -> None:
    memory = Memory()
    memory.ask(keys(range(10)), shard=3)
    assert len(memory.ask(keys(range(10)), shard=3).elsewhere) == 0


def test_two_that_begin_at_the_same_moment_share_the_work() -> None:
    """Both have asked before either scores; one of them owns pairs that the other wants, and the other way round."""
    memory, both = Memory(), threading.Barrier(2)
    scoring = [Scoring(both), Scoring(both)]
    found: dict[int, pa.Table] = {}

    def work(number: int, row: pa.Table) -> None:
        found[number] = score_once(row, memory, scoring[number])

    rows = [shard(0, range(60)), shard(1, range(40, 100))]
    threads = [threading.Thread(target=work, args=(number, row)) for number, row in enumerate(rows)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(scoring[0].asked + scoring[1].asked) == list(range(100))
    assert min(len(one.asked) for one in scoring) >= 40
    assert (logits(found[0]), logits(found[1])) == (list(range(60)), list(range(40, 100)))
    assert sum(ScoredShard.from_row(row).recalled for row in found.values()) == 20


def test_a_turn_is_free_for_others_while_one_waits() -> None:
    memory, turn, scoring = Memory(), threading.Lock(), Scoring()
    memory.ask(keys(range(5)), shard=9)
    waiter = threading.Thread(target=score_once, args=(shard(0, range(10)), memory, scoring, turn))
    waiter.start()
    end = time.monotonic() + PATIENCE
    while scoring.asked != [5, 6, 7, 8, 9] and time.monotonic() < end:
        time.sleep(0.01)
    assert turn.acquire(timeout=PATIENCE), "a worker holds its turn while it waits"
    assert waiter.is_alive()
    memory.remember(entries(range(5)), shard=9)
    waiter.join(PATIENCE)
    assert scoring.asked == [5, 6, 7, 8, 9]


@pytest.mark.usefixtures("impatient")
def test_what_its_owner_never_scores_is_scored_by_who_waits_for_it() -> None:
    memory, scoring = Memory(), Scoring()
    memory.ask(keys(range(5)), shard=9)  # and is never heard of again
    row = score_once(shard(0, range(10)), memory, scoring)
    assert scoring.asked == [5, 6, 7, 8, 9, 0, 1, 2, 3, 4]
    assert logits(row) == list(range(10)), "in the order of the shard"
    assert ScoredShard.from_row(row).recalled == 0
    assert len(memory.ask(keys(range(10)), shard=1).known) == 10


def test_a_pair_that_got_no_score_elsewhere_is_scored_at_once() -> None:
    memory, scoring = Memory(), Scoring()
    memory.ask(keys(range(5)), shard=9)
    threading.Timer(0.1, memory.remember, [entries(range(3)), 9]).start()
    assert logits(score_once(shard(0, range(6)), memory, scoring)) == list(range(6))
    assert scoring.asked == [5, 3, 4]


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
def test_a_row_that_is_scored_late_is_not_blamed_for_what_died_before_it(
    tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are the first row of what is scored at a time: what is remembered of the one must not be of the other."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    two = [{**rows[0], "title": None, "doc_id": text, "text": text} for text in ("EXIT", "dog")]
    source = write_parquet(tmp_path / "in.parquet", two)
    job = prepare(settings_for(source, tmp_path / "out", "python:tests.batch.crashing_scorers:score"))
    plan = planned(job.store, job.settings, job.inspected, InProcess(), None).plan
    units = tuple(read_units(plan.shards, plan.files))
    (row,) = Encode(units, Source(job.inspected.layout, plan.files), job.scorer)(pa.table({"unit": [0]}))
    memory = Memory()
    memory.ask(keys_of(EncodedShard.from_row(row).pairs.slice(1)), shard=9)
    score = GuardedScore(job.scorer, job.card.fingerprint, Scratch("run"), memory)
    with closing(score._guard._process):
        found = ScoredShard.from_row(score(row, nullcontext()))
    assert found.pairs.column("doc_id").to_pylist() == ["dog"]
    assert found.rejected.column("reason").to_pylist() == ["worker_crash"]


def test_a_memory_keeps_everything_while_there_is_room() -> None:
    memory = Memory()
    for start in range(0, 60_000, 7_000):
        memory.ask(keys(range(start, start + 7_000)), start)
        memory.remember(entries(range(start, start + 7_000)), start)
        memory.remember(entries(range(start, start + 100)), start)  # again
    assert len(memory) == 63_000
    answer = memory.ask(keys(range(62_000, 64_000)), 1)
    assert answer.known.tolist() == list(range(1_000))
    assert answer.entries["logit"].tolist() == list(range(62_000, 63_000))


def test_a_memory_that_is_full_forgets_and_mixes_nothing_up() -> None:
    memory = Memory(most_bytes=1024 * (ENTRY.itemsize + 8))
    for start in range(0, 10_000, 100):
        memory.ask(keys(range(start, start + 100)), start)
        memory.remember(entries(range(start, start + 100)), start)
        answer = memory.ask(keys(range(start, start + 100)), start + 1)
        assert answer.entries["logit"].tolist() == [float(start + place) for place in answer.known]
        assert len(answer.known) > 80, "the newest are there"
        assert len(answer.elsewhere) == 0
    answer = memory.ask(keys(range(10_000)), 1)
    assert answer.entries["logit"].tolist() == answer.known.tolist()
    assert 512 < len(answer.known) <= 1024


@ray.remote(num_cpus=0)
class Worker:
    """A worker of a run."""

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory

    def work(
        self, index: int, numbers: range, seconds: float, begun: Path | None = None
    ) -> tuple[list[int], list[float]]:
        """Which pairs it scored, in passes of so many seconds, and what came of the shard; `begun` is there then."""
        scoring = Scoring()

        def slowly(waiting: EncodedShard, row: pa.Table) -> pa.Table:
            if begun is not None:
                begun.touch()
            time.sleep(seconds)
            return scoring(waiting, row)

        row = score_once(shard(index, numbers), self._memory, slowly)
        return scoring.asked, logits(row)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_workers_in_processes_of_their_own_share_the_work_and_outlive_each_other(tmp_path: Path) -> None:
    shared = memory_for(workers=2)
    assert shared is not None
    actors: list[Any] = [Worker.remote(shared) for _ in range(2)]  # type: ignore[attr-defined]
    found = ray.get(
        [actor.work.remote(number, range(50), 0.5) for number, actor in enumerate(actors)], timeout=PATIENCE
    )
    assert sorted(found[0][0] + found[1][0]) == list(range(50)), "of two shards with the same pairs each is scored once"
    assert found[0][1] == found[1][1] == list(range(50))
    lost = actors[0].work.remote(2, range(100, 150), 3600.0, tmp_path / "begun")
    end = time.monotonic() + PATIENCE
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    survivor = actors[1].work.remote(3, range(101, 160), 0.1)
    ray.kill(actors[0])
    asked, scored = ray.get(survivor, timeout=2 * PATIENCE)
    assert (sorted(asked), scored) == (list(range(101, 160)), list(range(101, 160)))
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(lost, timeout=PATIENCE)


@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("workers", [2, 80])
def test_what_one_worker_scored_is_known_to_the_others_as_long_as_the_memory_lives(workers: int) -> None:
    shared = memory_for(workers)
    assert shared is not None
    assert len(shared._actors) == (1 if workers == 2 else 3)
    other: Any = ray.remote(lambda memory: memory.remember(entries(range(100)), 0))
    ray.get(other.remote(shared))
    end = time.monotonic() + 60  # whoever remembers does not wait until it is remembered
    while len(shared.ask(keys(range(90, 110)), 1).known) < 10 and time.monotonic() < end:
        time.sleep(0.05)
    answer = shared.ask(keys(range(90, 110)), 2)
    assert answer.elsewhere.tolist() == list(range(10, 20)), "the first who asked is at work on the others"
    assert (answer.known.tolist(), answer.entries["logit"].tolist()) == (list(range(10)), list(range(90, 100)))
    for actor in shared._actors:
        ray.kill(actor)
    while len(shared.ask(keys(range(90, 110)), 1).known):  # a killed actor may still answer what was asked meanwhile
        assert time.monotonic() < end, "a killed memory still answers"
        time.sleep(0.05)
    shared.remember(entries(range(100)), 1)
    assert len(shared.ask(keys(range(90, 110)), 1).known) == 0, "a memory that is lost costs time and nothing else"
