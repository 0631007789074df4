"""One memory for all workers of a run: Ray actors that share the pairs out, asked once and told once per shard.

It is a help and no more: a worker that gets no answer, because an actor is lost or slow, goes on without it.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rankmill.batch.memory import ENTRY, MOST_BYTES, Answer, Entries, Memory
from rankmill.batch.remembered import remember_committed
from rankmill.storage.store import Store

_log = logging.getLogger("rankmill")

_ANSWER_SECONDS = 60.0  # it may still be starting; later it takes milliseconds
_WORKERS_PER_ACTOR = 32  # a shard of 10,000 pairs takes some 20 ms of an actor's CPU, and a worker a second or more


class SharedMemory:
    """A worker's way to the memory that all of them share.

    Args:
        actors: handles of a `Memory` each; which of them knows a pair follows from its key.
    """

    def __init__(self, actors: Sequence[Any]) -> None:
        self._actors = list(actors)

    def ask(self, keys: NDArray[np.uint64], shard: int) -> Answer:
        """Look pairs up and claim the others; nothing is known where an actor does not answer."""
        nothing = np.zeros(0, np.int64)
        if not self._actors:
            return Answer(nothing, np.zeros(0, ENTRY), nothing)
        parts = self._parts(keys[:, 1])
        asked = [actor.ask.remote(keys[rows], shard) for actor, rows in zip(self._actors, parts, strict=True)]
        try:
            answers: list[Answer] = ray.get(asked, timeout=_ANSWER_SECONDS)
        except ray.exceptions.RayError as error:
            _log.warning("what other workers scored is not known here from now on: %s", type(error).__name__)
            self._actors = []
            return Answer(nothing, np.zeros(0, ENTRY), nothing)
        return _together(answers, parts)

    def remember(self, entries: Entries, shard: int, *, wait: bool = False) -> None:
        """Tell the actors of pairs; without waiting for them, if not asked to.

        Raises:
            RayError: they are lost, or did not answer for a minute; only where they are waited for.
        """
        parts = self._parts(entries["high"])
        told = [actor.remember.remote(entries[rows], shard) for actor, rows in zip(self._actors, parts, strict=True)]
        if wait:
            ray.get(told, timeout=_ANSWER_SECONDS)

    def _parts(self, keys: NDArray[np.uint64]) -> list[NDArray[np.int64]]:
        """The rows of each actor, ascending."""
        owners = keys % np.uint64(max(1, len(self._actors)))
        return [np.flatnonzero(owners == number) for number in range(len(self._actors))]


def memory_for(workers: int, kept: Store | None = None) -> SharedMemory | None:
    """A memory for a run; None for a single worker that needs none. Ray ends the actors when nobody refers to them.

    Args:
        workers: scoring workers, at most.
        kept: the output, where the job keeps its scores there: they are read in the background.
    """
    if workers == 1 and kept is None:
        return None
    # near the driver: a machine without which the run ends anyway
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    count = -(-workers // _WORKERS_PER_ACTOR)
    actor = ray.remote(Memory).options(num_cpus=0, scheduling_strategy=here)
    shared = SharedMemory([actor.remote(MOST_BYTES // count) for _ in range(count)])
    if kept is not None:
        _read.options(scheduling_strategy=here).remote(shared, kept)
    return shared


@ray.remote(num_cpus=0)
def _read(shared: SharedMemory, kept: Store) -> None:
    remember_committed(lambda entries, shard: shared.remember(entries, shard, wait=True), kept)


def _together(answers: Sequence[Answer], parts: Sequence[NDArray[np.int64]]) -> Answer:
    """The answers for parts of the pairs, as one for all."""
    if len(answers) == 1:
        return answers[0]
    known = np.concatenate([rows[answer.known] for answer, rows in zip(answers, parts, strict=True)])
    order = np.argsort(known)
    elsewhere = np.concatenate([rows[answer.elsewhere] for answer, rows in zip(answers, parts, strict=True)])
    entries = np.concatenate([answer.entries for answer in answers])
    return Answer(known[order], entries[order], np.sort(elsewhere), max(answer.patience for answer in answers))
