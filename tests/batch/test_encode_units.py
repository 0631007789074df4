"""What a task of the encoding stage is handed."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pytest

from rankmill.batch.encode_units import EncodeUnits, taken_apart
from rankmill.batch.executor import InProcess
from rankmill.batch.job import prepare
from rankmill.batch.plan import read_units
from rankmill.batch.planning import planned
from rankmill.batch.read import Source
from rankmill.batch.stages import Encode, encode_here
from tests.batch.conftest import Row, write_parquet
from tests.batch.jobs import settings_for


class Guard:
    """Tokenises as usual; counts how often it was unpickled."""

    unpickled: ClassVar[int] = 0

    def __reduce__(self) -> tuple[Callable[[], "Guard"], tuple[()]]:
        return _unpickle, ()

    __call__ = staticmethod(encode_here)


def _unpickle() -> Guard:
    Guard.unpickled += 1
    return Guard()


@pytest.fixture
def encode(tmp_path: Path, model: Path, rows: list[Row]) -> Encode:
    """Of several units of several shards each."""
    source = write_parquet(tmp_path / "in.parquet", rows)
    job = prepare(settings_for(source, tmp_path / "out", model, shard_pairs=1))
    plan = planned(job.store, job.settings, job.inspected, InProcess(), None).plan
    units = tuple(read_units(plan.shards, plan.files))
    assert len(units) == 2
    return Encode(units, Source(job.inspected.layout, plan.files), job.scorer, guard=Guard())


def rows_in(*units: dict[str, bytes]) -> pa.Table:
    return pa.Table.from_pylist(list(units))


def handed_over(stage: EncodeUnits) -> EncodeUnits:
    """As a task gets it."""
    found: EncodeUnits = pickle.loads(pickle.dumps(stage))  # noqa: S301 - our own
    return found


def test_the_shards_are_the_same_as_those_of_the_whole_plan(encode: Encode) -> None:
    stage, units = taken_apart(encode)
    found = [row for unit in units for row in handed_over(stage)(rows_in(unit))]
    expected = list(encode(pa.table({"unit": range(len(encode.units))})))
    assert len(found) == 13
    assert all(one.equals(other) for one, other in zip(found, expected, strict=True))


def test_what_all_tasks_have_in_common_is_unpickled_once_in_a_process(encode: Encode) -> None:
    stage, units = taken_apart(encode)
    Guard.unpickled = 0
    for unit in units:
        list(handed_over(stage)(rows_in(unit)))
    assert Guard.unpickled == 1


def test_a_task_is_handed_no_more_in_a_larger_job(encode: Encode) -> None:
    stage, units = taken_apart(encode)
    larger, more = taken_apart(replace(encode, units=encode.units * 1000))
    assert len(pickle.dumps(larger)) == len(pickle.dumps(stage))
    assert more[:2] == units
