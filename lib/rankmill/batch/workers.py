"""How many scoring workers, and what each of them holds. Pure policy."""

from dataclasses import dataclass, replace
from typing import Self

from rankmill.errors import UsageError

SPARE_CPUS = 2
"""CPUs a local cluster has beyond the machine's cores: reading and tokenising are tasks too, small ones, and must
find a place while the workers hold all cores. A pool that takes every CPU makes Ray wait for ever."""


_LOCAL_WORKERS = 4


@dataclass(frozen=True, slots=True)
class Pool:
    """The actor pool that scores."""

    min_workers: int
    max_workers: int
    cpus: float
    """CPUs each worker reserves."""
    gpus: float
    """GPUs each worker reserves."""
    device: str
    """`cuda` or `cpu`."""
    threads: int | None
    """Threads of each worker's forward pass; None with a GPU."""

    def for_shards(self, shards: int) -> Self:
        """The same pool, without workers that would load a model for no shard."""
        most = max(1, shards)
        return replace(self, min_workers=min(self.min_workers, most), max_workers=min(self.max_workers, most))


def choose_pool(
    workers: tuple[int, int] | None,
    gpus_per_worker: float | None,
    cpus_per_worker: int | None,
    *,
    cores: int,
    gpus: float,
    local: bool,
    elastic: bool = False,
) -> Pool:
    """Decide on the pool.

    With GPUs: one worker per GPU unless told otherwise, no CPU reserved. Without, on this machine: the cores shared out
    over the workers asked for, or over up to four. Threads of one forward pass wait for each other at every layer, and
    for whatever else the machine does: on two cores, two workers of one thread scored 3,000 pairs in 54 s of their
    time, one worker of two threads in 61 s. More than four workers would hold the model too many times. Without, on a
    cluster: workers of one CPU each, because how many cores a node has free is not known. A cluster that grows must be
    told: its machines may all be still to come.

    Args:
        workers: (min, max) as asked for, or None.
        gpus_per_worker: as asked for, or None.
        cpus_per_worker: as asked for, or None.
        cores: CPU cores of the machine or the cluster.
        gpus: GPUs of the machine or the cluster.
        local: this machine, not a cluster of many.
        elastic: machines may be added while the job runs.

    Raises:
        UsageError: an elastic cluster, and its machines of now would decide how many workers there will ever be, or
            that they compute on CPUs.
    """
    if elastic and (workers is None or (gpus_per_worker is None and gpus < 1)):
        raise UsageError(
            f"This cluster grows on demand, and the {gpus:g} GPUs that it has now do not say what the job should use: "
            "say --gpus-per-worker 1 --workers 1,8 for up to 8 GPUs, or --gpus-per-worker 0 --workers 1,8 for CPUs."
        )
    per_worker = (1.0 if gpus >= 1 else 0.0) if gpus_per_worker is None else gpus_per_worker
    if per_worker > 0:
        low, high = workers or (1, max(1, int(gpus / per_worker)))
        return Pool(low, high, cpus=0, gpus=per_worker, device="cuda", threads=None)
    share = max(1, cores // (workers[1] if workers else min(cores, _LOCAL_WORKERS))) if local else 1
    threads = cpus_per_worker or share
    most = max(1, cores // threads)
    low, high = workers or (most if local else 1, most)
    return Pool(low, high, cpus=threads, gpus=0, device="cpu", threads=threads)
