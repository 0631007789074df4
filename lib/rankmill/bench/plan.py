"""How many machines a job needs, and what they cost: arithmetic on a measured rate."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """Machines, or GPUs, of the kind that was measured."""

    pairs: int
    hours: float
    """Until when it should be done."""
    pairs_per_second: float
    """Of one of them."""
    workers: int
    """The fewest that are done in time."""
    run_hours: float
    """How long that many take."""
    worker_hours: float
    """Of all of them together."""
    cost: float | None
    """In the currency of the price; None without a price."""


def plan(pairs: int, hours: float, pairs_per_second: float, price_per_hour: float | None = None) -> Plan:
    """Divide, and round the machines up. Nothing is set aside for starting them, or for those that fail.

    Args:
        pairs: to be scored, of about the same length as those measured.
        hours: until when.
        pairs_per_second: of one machine, or GPU.
        price_per_hour: of one machine, or GPU.
    """
    worker_hours = pairs / pairs_per_second / 3600
    workers = max(1, math.ceil(worker_hours / hours))
    return Plan(
        pairs=pairs,
        hours=hours,
        pairs_per_second=pairs_per_second,
        workers=workers,
        run_hours=worker_hours / workers,
        worker_hours=worker_hours,
        cost=None if price_per_hour is None else worker_hours * price_per_hour,
    )
