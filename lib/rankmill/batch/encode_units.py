"""Encode as Ray Data runs it: a task gets its own units, and what all tasks have in common once per process.

Ray Data unpickles a stage anew for every task. One that holds the whole plan would make what a job costs grow with the
square of its shards: 100,000 shards in 10,000 files take a second of a CPU to unpickle, for every eight shards.
"""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import pyarrow as pa

from rankmill.batch.stages import Encode


@dataclass(frozen=True, slots=True)
class EncodeUnits:
    """Takes rows with a pickled `rankmill.batch.plan.ReadUnit` each (column `unit`), yields one row per shard."""

    encode: bytes
    """A pickled `Encode` without units."""

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Encode the shards of some units."""
        encode = _unpickled(self.encode)
        for unit in batch.column("unit").to_pylist():
            yield from encode.shards(pickle.loads(unit))  # noqa: S301 - from our own driver


def taken_apart(encode: Encode) -> tuple[EncodeUnits, list[dict[str, bytes]]]:
    """The stage and the rows that it takes, one for each unit."""
    stage = EncodeUnits(pickle.dumps(replace(encode, units=()), protocol=5))
    return stage, [{"unit": pickle.dumps(unit, protocol=5)} for unit in encode.units]


@lru_cache(maxsize=1)
def _unpickled(encode: bytes) -> Encode:
    found: Encode = pickle.loads(encode)  # noqa: S301 - from our own driver
    return found
