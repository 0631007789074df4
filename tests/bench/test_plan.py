"""How many machines, for how long, at what price."""

import pytest

from rankmill.bench.plan import plan
from rankmill.errors import UsageError
from rankmill.settings.bench import BenchSettings
from rankmill.settings.load import load_settings


def test_machines_are_rounded_up_and_hours_are_not() -> None:
    # 100 pairs/s are 360,000 an hour; 18 million take 50 hours of one machine
    found = plan(18_000_000, 24, 100, price_per_hour=2)
    assert (found.workers, found.worker_hours, found.cost) == (3, 50, 100)
    assert found.run_hours == 50 / 3


@pytest.mark.parametrize(("pairs", "hours", "workers"), [(1, 24, 1), (8_640_000, 24, 1), (8_640_001, 24, 2)])
def test_done_in_time(pairs: int, hours: float, workers: int) -> None:
    found = plan(pairs, hours, 100)
    assert (found.workers, found.cost) == (workers, None)
    assert found.run_hours <= hours


@pytest.mark.parametrize(
    ("written", "pairs"),
    [("100M", 10**8), ("2.5B", 2_500_000_000), ("800k", 800_000), ("1,000,000", 10**6), ("7", 7), ("1.2k", 1200)],
)
def test_numbers_as_people_write_them(written: str, pairs: int) -> None:
    assert load_settings(BenchSettings, ["--plan-pairs", written], "rankmill bench").plan_pairs == pairs


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--plan-pairs", "many"], "--plan-pairs many: give a number"),
        (["--plan-pairs", "0"], "--plan-pairs 0"),
        (["--plan-pairs", "-5M"], "--plan-pairs"),
        (["--price-per-hour", "2"], "--price-per-hour needs --plan-pairs"),
        (["--grow", "2", "--no-job"], "leave out --no-job"),
        (["--latency-seconds", "0"], "--latency-seconds 0"),
    ],
)
def test_mistakes_are_named(flags: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_settings(BenchSettings, flags, "rankmill bench")
