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

from rankmill.batch.memory import Memory
from rankmill.batch.score_once import entries_of, keys_of
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


def shard(draw: np.random.Generator) -> tuple[pa.Table, pa.Table]:
    """New pairs, and the same scored."""
    keys = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), PAIRS, [None, pa.py_buffer(draw.bytes(16 * PAIRS))])
    pairs = pa.table({"pair_key": keys})
    scored = pairs.append_column("logit", pa.array(draw.random(PAIRS), pa.float32()))
    return pairs, scored


def main() -> None:
    """Measure and print."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    actor: Any = ray.remote(Measured).options(num_cpus=0).remote()
    memory = SharedMemory([actor])
    draw = np.random.default_rng(0)
    shards = [shard(draw) for _ in range(SHARDS)]
    before, here = ray.get(actor.cpu_seconds.remote()), cpu_seconds()
    for number, (waiting, scored) in enumerate(shards):
        memory.ask(keys_of(waiting), number)
        memory.remember(entries_of(scored), number)
    worker, there = cpu_seconds() - here, ray.get(actor.cpu_seconds.remote()) - before
    sys.stdout.write(
        f"{1000 * worker / SHARDS:.1f} ms of the worker and {1000 * there / SHARDS:.1f} ms of the actor per shard\n"
    )
    ray.shutdown()


if __name__ == "__main__":
    main()
