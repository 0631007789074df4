"""Small chores on every live machine of the cluster."""

from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy


def on_every_node(function: Callable[[], object], seconds: float) -> Iterator[tuple[str, str]]:
    """Call `function` on each live node; yields addresses and answers, for a node without one the reason."""
    task: Any = ray.remote(lambda: function())  # noqa: PLW0108 - Ray refuses partials
    alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    refs = [
        # No CPU and hard affinity: a node that is full answers too, and none answers for another
        task.options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in alive
    ]
    done, _ = ray.wait(refs, num_returns=len(refs), timeout=seconds)
    answered = set(done)
    for node, ref in zip(alive, refs, strict=True):
        try:
            answer = str(ray.get(ref)) if ref in answered else f"no answer within {seconds:g} s"
        except ray.exceptions.RayError as error:
            answer = f"no answer: {error}"
        yield node["NodeManagerAddress"], answer
