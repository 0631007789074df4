"""Scoring workers that sleep: many of them fit into one machine, and everything around them is what a job does."""

import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from ray.data import ActorPoolStrategy, Dataset

from rankmill.batch.freight import EncodedShard, ScoredShard
from rankmill.batch.pipeline import RayData
from rankmill.batch.score_and_write import CALLS, ScoreAndWrite, Turn
from rankmill.batch.scratch import Scratch
from rankmill.batch.stages import Write
from rankmill.scoring.options import ScorerOptions


class Sleeping:
    """In the place of the scoring stage: every shard takes the same time, and no CPU.

    Args:
        seconds: for a shard.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __call__(self, row: pa.Table, turn: Turn) -> pa.Table:
        """Take one encoded shard, return it scored, after a while."""
        shard = EncodedShard.from_row(row)
        logits = pa.array(np.zeros(len(shard.pairs), dtype=np.float32))
        with turn:
            begun = time.perf_counter()
            time.sleep(self._seconds)
            taken = time.perf_counter() - begun
        return ScoredShard(
            shard.index, shard.pairs.append_column("logit", logits), shard.rejected, taken, shard.known
        ).to_row()


@dataclass(frozen=True, slots=True)
class SleepingWorkers(RayData):
    """Ray Data with workers that sleep, several threads of an actor each; the other stages are those of every job."""

    seconds: float = 0.0
    """For a shard."""
    per_actor: int = 1
    """Workers that share a process; they divide those of the pool."""

    def written(self, encoded: Dataset, scorer: ScorerOptions, write: Write, scratch: Scratch) -> Dataset:  # noqa: ARG002 - nothing is scored
        """Sleep over every shard, then write it."""
        return encoded.map_batches(
            ScoreAndWrite,
            fn_constructor_args=(partial(Sleeping, self.seconds), write, self.per_actor),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=self.pool.cpus,
            compute=ActorPoolStrategy(
                size=self.pool.max_workers // self.per_actor,
                max_concurrent_calls_per_actor=CALLS * self.per_actor,
                enable_true_multi_threading=True,
            ),
        )
