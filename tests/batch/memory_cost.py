"""What the memory of a run costs where no pair comes twice: `python -m tests.batch.memory_cost`.

CPU milliseconds per shard of 10,000 pairs, of the worker that asks and tells and of the Ray actor that is asked.
"""

import logging
import resource
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from rankmill.batch.freight import EncodedShard
from rankmill.batch.memory import Memory, entries_of, recall
from rankmill.batch.shared_memory import SharedMemory

PAIRS, SHARDS = 10_000, 100


def cpu_seconds() -> float:
    """CPU time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Measured(Memory):
    """A memory that knows what it took."""

    def cpu_seconds(self) -> float:
        """CPU time of its process."""
        return cpu_seconds()


def shard(draw: np.random.Generator) -> tuple[EncodedShard, pa.Table]:
    """A shard of new pairs of one token each, and the same pairs scored."""
    one = np.ones(PAIRS, np.int32)
    keys = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), PAIRS, [None, pa.py_buffer(draw.bytes(16 * PAIRS))])
    pairs = pa.table({"pair_key": keys, "length": one, "document_start": one, "truncated": one > 1})
    scored = pairs.append_column("logit", pa.array(draw.random(PAIRS), pa.float32()))
    return EncodedShard(0, pairs, pa.table({}), one), scored


def main() -> None:
    """Measure and print."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    actor: Any = ray.remote(Measured).options(num_cpus=0).remote()
    memory = SharedMemory(actor)
    draw = np.random.default_rng(0)
    shards = [shard(draw) for _ in range(SHARDS)]
    before, here = ray.get(actor.cpu_seconds.remote()), cpu_seconds()
    for waiting, scored in shards:
        recall(waiting, memory)
        memory.remember(entries_of(scored))
    worker, there = cpu_seconds() - here, ray.get(actor.cpu_seconds.remote()) - before
    sys.stdout.write(
        f"{1000 * worker / SHARDS:.1f} ms of the worker and {1000 * there / SHARDS:.1f} ms of the actor per shard\n"
    )
    ray.shutdown()


if __name__ == "__main__":
    main()
