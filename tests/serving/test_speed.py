"""What is learnt of a scorer's speed from calls of different sizes."""

import pytest

from rankmill.serving.speed import Speed


def test_a_small_call_says_nothing_of_large_ones() -> None:
    """Each call of an endpoint takes 0.1 s, however small it is."""
    speed = Speed(enough=8000)
    assert speed.of(1, now=0.0) is None
    speed.learn(20, 0.1, now=1.0)
    assert speed.of(20, now=1.0) == pytest.approx(200)
    assert speed.of(64_000, now=1.0) is None
    speed.learn(6400, 0.1, now=2.0)
    assert speed.of(64_000, now=2.0) == pytest.approx(64_000)
    for _ in range(40):
        speed.learn(20, 0.1, now=3.0)
    assert speed.of(64_000, now=3.0) == pytest.approx(64_000)
    assert speed.of(10**9, now=3.0) is None
    speed.learn(8000, 0.1, now=4.0)
    assert speed.of(10**9, now=4.0) is not None


def test_calls_of_like_size_are_averaged() -> None:
    speed = Speed(enough=1000)
    for seconds in [1.0] * 50 + [0.5] * 50:
        speed.learn(1000, seconds, now=1.0)
    assert speed.rate == pytest.approx(2000, rel=0.01)


def test_what_was_long_ago_is_forgotten() -> None:
    speed = Speed(enough=1000)
    speed.learn(1000, 1.0, now=0.0)
    assert speed.of(10, now=59.0) is not None
    assert speed.of(10, now=61.0) is None
    speed.learn(10, 1.0, now=61.0)
    assert speed.rate == pytest.approx(10)


def test_a_call_that_was_broken_off_was_at_most_so_fast() -> None:
    speed = Speed(enough=1000)
    speed.learn_most(1000, 10.0, now=0.0)
    assert speed.rate == pytest.approx(100)
    speed.learn_most(1000, 1.0, now=0.0)
    assert speed.rate == pytest.approx(100)
