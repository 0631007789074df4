"""A scoring worker that is called by several threads: what happens at the same time, and what does not."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rankmill.batch.executor import receipts
from rankmill.batch.score_and_write import ScoreAndWrite, Turn
from rankmill.batch.stages import Write
from rankmill.storage.store import Store
from tests.batch.test_commit_protocol import OPTIONS, scored

_PATIENCE = 30.0


def row(shard: int) -> pa.Table:
    return pa.table({"shard": [shard]})


class Scoring:
    """Scores as soon as `together` threads are at it, and after `seconds`; remembers how many were at most."""

    def __init__(self, together: int = 1, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self.begun = threading.Semaphore(0)
        self.most = self._now = 0
        self._count = threading.Lock()
        self._all_there = threading.Barrier(together)

    def __call__(self, row: pa.Table, turn: Turn) -> pa.Table:
        with turn:
            with self._count:
                self._now += 1
                self.most = max(self.most, self._now)
            self.begun.release()
            self._all_there.wait(_PATIENCE)
            time.sleep(self._seconds)
            with self._count:
                self._now -= 1
        return scored(row.column("shard")[0].as_py(), 0).to_row()


class PatientStore(Store):
    """A local folder that keeps its first writer waiting until another shard is being scored."""

    scoring: Scoring

    def create(self, key: str, body: bytes, metadata: object = None) -> bool:  # noqa: ARG002 - local disks keep none
        if key == "part-000000.parquet":
            for _ in range(2):
                assert self.scoring.begun.acquire(timeout=_PATIENCE), "nothing was scored while this was written"
        return super().create(key, body)


def test_the_next_shard_is_scored_while_one_is_written(tmp_path: Path) -> None:
    store = PatientStore(str(tmp_path))
    store.scoring = Scoring()
    worker = ScoreAndWrite(lambda: store.scoring, Write(store, OPTIONS))
    with ThreadPoolExecutor(2) as calls:
        found = [next(receipts(found.to_pylist())) for found in calls.map(worker, map(row, range(2)))]
    assert [receipt.shard for receipt in found] == [0, 1]
    assert len(pq.read_table(tmp_path)) == sum(receipt.pairs_in for receipt in found)


def test_a_worker_scores_one_shard_at_a_time(tmp_path: Path) -> None:
    scoring = Scoring(seconds=0.05)
    worker = ScoreAndWrite(lambda: scoring, Write(Store(str(tmp_path)), OPTIONS))
    with ThreadPoolExecutor(4) as calls:
        list(calls.map(worker, map(row, range(8))))
    assert scoring.most == 1


def test_one_that_stands_for_three_scores_three(tmp_path: Path) -> None:
    scoring = Scoring(together=3)
    worker = ScoreAndWrite(lambda: scoring, Write(Store(str(tmp_path)), OPTIONS), workers=3)
    with ThreadPoolExecutor(6) as calls:
        list(calls.map(worker, map(row, range(6))))
    assert scoring.most == 3
