"""How many replicas there should be."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankmill.serving.scaling import BUSY, QUEUED_SECONDS, QueuedWorkPolicy, replicas_wanted


@pytest.mark.parametrize(
    ("queued_seconds", "busy", "requests", "current", "wanted"),
    [
        (0.0, 0.0, 0, 0, 0),  # asleep
        (0.0, 0.0, 1, 0, 1),  # a request wakes it
        (0.0, 0.0, 0, 2, 0),  # nothing to do
        (0.0, 0.0, 1, 2, 1),  # next to nothing
        (0.5, 0.9, 4, 1, 2),  # little waits, but one replica has no time left
        (2.5, 1.0, 9, 1, 5),  # five times what may wait for one
        (0.1, 2.1, 9, 3, 3),  # short queues because there are three: two would not do
        (0.0, 1.6, 9, 3, 2),
    ],
)
def test_replicas_wanted(queued_seconds: float, busy: float, requests: float, current: int, wanted: int) -> None:
    assert replicas_wanted(queued_seconds, busy, requests, current=current, target_seconds=0.5) == wanted


@given(
    st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0, 64), st.integers(0, 100), st.integers(1, 64), st.floats(0.1, 10)
)
def test_more_work_never_wants_fewer(
    queued: float, more: float, busy: float, requests: int, current: int, target: float
) -> None:
    few = replicas_wanted(queued, busy, requests, current=current, target_seconds=target)
    many = replicas_wanted(queued + more, busy, requests, current=current, target_seconds=target)
    assert 0 <= few <= many
    assert many * target >= queued + more - 1e-6 * (queued + more)


@dataclass
class Context:
    """What the policy reads of Ray's context; test_autoscaling.py runs it inside Ray's own."""

    aggregated_metrics: dict[str, dict[Any, float]] | None = None
    total_num_requests: float = 0
    current_num_replicas: int = 1
    more: dict[str, Any] = field(default_factory=dict)


def test_the_policy_adds_up_what_replicas_report() -> None:
    policy = QueuedWorkPolicy(target_seconds=1.0)
    metrics = {QUEUED_SECONDS: {"a": 1.5, "b": 2.0}, BUSY: {"a": 1.0, "b": 0.5}}
    assert policy(Context(metrics, 7, 2)) == (4.0, {})
    assert policy(Context(None, 7, 2)) == (1.0, {})
    assert policy(Context({}, 0, 2)) == (0.0, {})
