"""One memory for all workers of a run: a Ray actor, asked once and told once per shard.

It is a help and no more: a worker that gets no answer, because the actor is lost or slow, goes on without it.
"""

import logging
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rankmill.batch.memory import ENTRY, Entries, Memory

_log = logging.getLogger("rankmill")

_ANSWER_SECONDS = 60.0  # it may still be starting; later it takes milliseconds


class SharedMemory:
    """A worker's way to the memory that all of them share.

    Args:
        actor: handle of a `Memory`.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def find(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], Entries]:
        """Look pairs up; nothing is found where the actor does not answer."""
        if self._actor is not None:
            try:
                found: tuple[NDArray[np.int64], Entries] = ray.get(
                    self._actor.find.remote(keys), timeout=_ANSWER_SECONDS
                )
            except ray.exceptions.RayError as error:
                _log.warning("what other workers scored is not known here from now on: %s", type(error).__name__)
                self._actor = None
            else:
                return found
        return np.zeros(0, np.int64), np.zeros(0, ENTRY)

    def remember(self, entries: Entries) -> None:
        """Tell the actor of pairs, without waiting for it."""
        if self._actor is not None:
            self._actor.remember.remote(entries)


def memory_for(workers: int) -> SharedMemory | None:
    """An empty memory for a run; None for a single worker. Ray ends the actor when nobody refers to it.

    Args:
        workers: scoring workers, at most.
    """
    if workers == 1:
        return None
    # near the driver: a machine without which the run ends anyway
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return SharedMemory(ray.remote(Memory).options(num_cpus=0, scheduling_strategy=here).remote())
