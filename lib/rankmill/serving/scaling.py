"""How many replicas a scorer needs, from the work that waits and the work that is done.

Ray Serve's own policy counts requests, which says little where one has 1 document and the next 1,000. Here a replica
reports the seconds that its queue will take (its tokens, at the speed measured), and the share of the time in which it
computes. The first makes a deployment grow, the second keeps it from shrinking to what would have to grow again.

Ray takes this module to its controller by value: it imports nothing of rankmill.
"""

import math
from collections.abc import Mapping
from typing import Any

QUEUED_SECONDS = "queued_seconds"
"""Of a replica: tokens that wait, over tokens per second."""
BUSY = "busy"
"""Of a replica: the share of the time since it last said so that it spent in forward passes, 0 to 1."""

_FULL = 0.8
"""Share of the time at which a replica counts as full: beyond it, queues grow with every burst."""


def replicas_wanted(
    queued_seconds: float, busy: float, requests: float, *, current: int, target_seconds: float
) -> float:
    """Decide on the number of replicas; bounds and delays are Ray's.

    Args:
        queued_seconds: of all replicas together.
        busy: of all replicas together; 3.0 is three replicas that compute all the time.
        requests: on their way or waiting at a gateway, whether a replica has them or not.
        current: replicas that run.
        target_seconds: what may wait for one replica.

    Returns:
        At least 1 while there are requests; else it may be 0.
    """
    if current == 0:
        return 1.0 if requests > 0 else 0.0
    wanted = max(math.ceil(queued_seconds / target_seconds), math.ceil(busy / _FULL))
    return float(max(wanted, 1 if requests > 0 else 0))


class QueuedWorkPolicy:
    """The policy as Ray Serve calls it.

    Args:
        target_seconds: seconds of work that may wait for one replica.
    """

    def __init__(self, target_seconds: float) -> None:
        self._target_seconds = target_seconds

    def __call__(self, context: Any) -> tuple[float, dict[str, Any]]:
        """Decide.

        Args:
            context: `ray.serve.config.AutoscalingContext`.

        Returns:
            Replicas, and the policy's state: there is none.
        """
        metrics: Mapping[str, Mapping[Any, float]] = context.aggregated_metrics or {}
        wanted = replicas_wanted(
            sum(metrics.get(QUEUED_SECONDS, {}).values()),
            sum(metrics.get(BUSY, {}).values()),
            context.total_num_requests,
            current=context.current_num_replicas,
            target_seconds=self._target_seconds,
        )
        return wanted, {}
