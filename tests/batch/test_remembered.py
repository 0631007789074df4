"""A job that is continued knows what it scored before, where it kept its scores."""

import logging
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rankmill.batch.memory import Memory
from rankmill.batch.remembered import remember_committed
from rankmill.batch.score_once import entries_of, keys_of
from rankmill.batch.shared_memory import memory_for
from rankmill.storage.store import Store
from tests.batch.conftest import Row, write_parquet
from tests.batch.jobs import run_job

COUNTING = "python:tests.batch.counting_scorer:score"


@pytest.fixture
def kept(tmp_path: Path, rows: list[Row]) -> list[Path]:
    """The files of scores of a job of several shards, in order."""
    run_job(write_parquet(tmp_path / "in.parquet", rows), tmp_path / "out", COUNTING, keep_scores=True)
    files = sorted((tmp_path / "out" / "_rankmill" / "scores").iterdir())
    assert len(files) > 2
    return files


def test_what_committed_shards_kept_is_remembered(tmp_path: Path, kept: list[Path]) -> None:
    memory = Memory()
    remember_committed(memory.remember, Store(str(tmp_path / "out")))
    for file in kept:
        table = pq.read_table(file)
        answer = memory.ask(keys_of(table), shard=1000)
        assert len(answer.known) == len(table)
        assert answer.entries.tolist() == entries_of(table).tolist()


def test_a_file_that_cannot_be_read_is_a_warning_and_no_more(
    tmp_path: Path, kept: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    tables = [pq.read_table(file) for file in kept]
    kept[0].unlink()
    kept[1].write_bytes(kept[1].read_bytes()[:-1] + b"?")
    memory = Memory()
    with caplog.at_level(logging.WARNING, "rankmill"):
        remember_committed(memory.remember, Store(str(tmp_path / "out")))
    assert [len(memory.ask(keys_of(table), 1000).known) > 0 for table in tables] == [
        False,
        False,
        *[True] * (len(kept) - 2),
    ]
    assert [file.name in text for file, text in zip(kept, caplog.messages, strict=False)] == [True, True]


def test_no_more_is_read_than_there_is_room_for(tmp_path: Path, kept: list[Path]) -> None:
    told: list[int] = []
    most = len(pq.read_table(kept[0])) + 1
    remember_committed(lambda _, shard: told.append(shard), Store(str(tmp_path / "out")), most)
    assert told == [0, 1], "the file that passes the limit is the last"


@pytest.mark.usefixtures("local_ray")
def test_the_memory_of_a_run_reads_them_while_it_answers(tmp_path: Path, kept: list[Path]) -> None:
    assert memory_for(workers=1) is None
    shared = memory_for(workers=1, kept=Store(str(tmp_path / "out")))
    assert shared is not None
    keys = keys_of(pq.read_table(kept[-1]))
    end = time.monotonic() + 60
    while len(shared.ask(keys, 1000).known) < len(keys):
        assert time.monotonic() < end, "what was kept is never known"
        time.sleep(0.05)
