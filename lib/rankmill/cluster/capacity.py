"""What a cluster offers, and the refusal of what it can never hold."""

import json
import sys
from dataclasses import dataclass

from rankmill.cluster.source import SourceTree
from rankmill.errors import UsageError

_ROUNDING = 1e-6
"""Ten workers of 0.1 CPU fit into one CPU, whatever 1 / 0.1 is in binary."""


@dataclass(frozen=True, slots=True)
class Node:
    """What one live node offers in total, in use or not."""

    ip: str
    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True)
class ClusterInfo:
    """The cluster that this process is connected to."""

    address: str
    """host:port of its control store."""
    local: bool
    """Started by this process, on this machine."""
    elastic: bool
    """An autoscaler may add nodes (or it is not known that none does), so what is missing now may still come."""
    nodes: tuple[Node, ...]
    source: SourceTree
    """The copy of rankmill that the driver and every live node import."""

    @property
    def cpus(self) -> float:
        """CPUs of the live nodes together."""
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        """GPUs of the live nodes together."""
        return sum(node.gpus for node in self.nodes)


def require_resources(
    info: ClusterInfo, *, workers: int, cpus_per_worker: float, gpus_per_worker: float, spare_cpus: float = 1.0
) -> None:
    """Refuse a pool of workers that this cluster can never hold: Ray would wait for it for ever, without a word.

    Args:
        info: the cluster. Nothing is refused on an elastic one.
        workers: how many workers must run at once (the least, for a pool that grows).
        cpus_per_worker: CPUs that each worker holds.
        gpus_per_worker: GPUs that each worker holds.
        spare_cpus: CPUs that must stay free for the tasks that read and write.

    Raises:
        UsageError: naming what is asked for, what there is, and how many workers fit.
    """
    if info.elastic or workers < 1:
        return
    fitting = sum(_workers_on(node, cpus_per_worker, gpus_per_worker) for node in info.nodes)
    free = info.cpus - spare_cpus
    if cpus_per_worker > 0:
        fitting = min(fitting, int(free / cpus_per_worker + _ROUNDING))
    if workers <= fitting and free >= 0:
        return
    place = "this machine" if info.local else f"the cluster at {info.address} ({_count(len(info.nodes), 'node')})"
    asked = [_count(number, noun) for number, noun in ((cpus_per_worker, "CPU"), (gpus_per_worker, "GPU")) if number]
    spare = f", of which {_count(spare_cpus, 'CPU')} must stay free to read and write" if spare_cpus else ""
    fix = f"Ask for at most {_count(fitting, 'worker')}" if fitting > 0 and free >= 0 else "Ask for less per worker"
    raise UsageError(
        f"{_count(workers, 'worker')} with {' and '.join(asked) or 'no resources'} each cannot run at once: {place} "
        f"has {_count(info.gpus, 'GPU')} and {_count(info.cpus, 'CPU')}{spare}. {fix}, or use a larger cluster."
    )


def may_grow(*, autoscaler_v2: bool, status: str | None) -> bool:
    """Whether an autoscaler may add nodes, judged from what the cluster's monitor publishes.

    A cluster without an autoscaler has a read-only monitor, which calls every node a type of its own, "node_<id>".

    Args:
        autoscaler_v2: the second-generation autoscaler has announced itself.
        status: the monitor's report as JSON; None until it has written one (then the answer is yes: not known).
    """
    if autoscaler_v2 or not status:
        return True
    report = json.loads(status).get("autoscaler_report") or {}
    types = {*(report.get("active_nodes") or {}), *(report.get("idle_nodes") or {})}
    return not types or any(not name.startswith("node_") for name in types)


def _workers_on(node: Node, cpus_per_worker: float, gpus_per_worker: float) -> int:
    needs = ((node.cpus, cpus_per_worker), (node.gpus, gpus_per_worker))
    return min((int(offered / needed + _ROUNDING) for offered, needed in needs if needed > 0), default=sys.maxsize)


def _count(number: float, noun: str) -> str:
    return f"{number:g} {noun}" if number == 1 else f"{number:g} {noun}s"
