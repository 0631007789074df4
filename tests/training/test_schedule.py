"""Steps are functions of their number alone."""

import pytest

from rankmill.training.schedule import flat_until, learning_rate, length_of_step, lists_of_step


def test_the_rate_rises_stays_and_falls_to_zero() -> None:
    rates = [learning_rate(step, 100, 1.0, 10, 0.3) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[10:70] == [1.0] * 60
    assert rates[85] == pytest.approx(0.5)
    assert rates[100] == 0.0
    assert flat_until(100, 0.3) == 70


def test_before_the_fall_the_rate_does_not_depend_on_the_number_of_steps() -> None:
    assert [learning_rate(step, 100, 1.0, 10, 0.3) for step in range(70)] == [
        learning_rate(step, 900, 1.0, 10, 0.3) for step in range(70)
    ]


def test_one_pass_takes_every_list_once_and_the_next_in_another_order() -> None:
    first = [i for step in range(5) for i in lists_of_step(step, 20, 4, seed=1)]
    second = [i for step in range(5, 10) for i in lists_of_step(step, 20, 4, seed=1)]
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert first != [i for step in range(5) for i in lists_of_step(step, 20, 4, seed=2)]


def test_a_step_may_span_two_passes() -> None:
    assert len(lists_of_step(2, 5, 2, seed=0)) == 2
    assert len(set(lists_of_step(0, 5, 5, seed=0))) == 5


def test_lengths_are_seeded_and_within_their_limits() -> None:
    lengths = [length_of_step(step, 32, 256, seed=0) for step in range(200)]
    assert lengths == [length_of_step(step, 32, 256, seed=0) for step in range(200)]
    assert 32 <= min(lengths) < 40
    assert 220 < max(lengths) <= 256
    assert length_of_step(3, None, 128, seed=0) == 128
