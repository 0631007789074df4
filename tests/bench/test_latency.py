"""Which requests are timed, and how many."""

import pytest

from rankmill.bench.latency import CANDIDATES, how_many, measure, request


@pytest.mark.parametrize(
    ("candidates", "seconds", "requests"),
    [
        (1, 3, 100),  # 300 would fit; 100 are enough
        (10, 3, 30),
        (50, 3, 6),
        (100, 3, 3),
        (200, 3, 3),  # 3 take 6 seconds: twice the time
        (300, 3, 3),  # with the first one, which is not timed, four times: still
        (301, 3, 0),
    ],
)
def test_how_many_fit(candidates: int, seconds: float, requests: int) -> None:
    assert how_many(candidates, 100, seconds) == requests


def test_requests_are_made_of_the_pairs_in_turn() -> None:
    queries, texts = ["a", "a", "b", "b", "b"], ["1", "2", "3", "4", "5"]
    assert request(queries, texts, 2, 0) == (["a", "a"], ["1", "2"])
    assert request(queries, texts, 2, 1) == (["b", "b"], ["3", "4"])
    assert request(queries, texts, 2, 2) == (["b", "b"], ["5", "1"])
    assert request(queries, texts, 7, 0) == (["a"] * 7, ["1", "2", "3", "4", "5", "1", "2"])


def test_every_size_is_asked_for_once_more_than_it_is_timed() -> None:
    asked: list[int] = []
    found = measure(lambda queries, _texts: asked.append(len(queries)), ["q"], ["t"], 20, 10)
    assert [size.candidates for size in found] == list(CANDIDATES)
    assert [size.requests for size in found] == [100, 20, 4, 3, 3]
    assert [asked.count(size.candidates) for size in found] == [101, 21, 5, 4, 4]
    assert all(size.p50_ms is not None and size.p99_ms is not None and size.p50_ms <= size.p99_ms for size in found)
    skipped = measure(lambda *_: None, ["q"], ["t"], 1, 1)
    assert [(size.requests, size.p50_ms) for size in skipped[1:]] == [(0, None)] * 4


def test_a_size_ends_when_its_time_is_over() -> None:
    """A device that is not full takes as long for 1 candidate as for 50, and the throughput does not say so."""
    passed = [0.0]

    def slow(queries: list[str], _texts: list[str]) -> None:
        passed[0] += 0.5 if len(queries) <= 50 else 0.75

    found = measure(slow, ["q"], ["t"], 1000, 3, lambda: passed[0])
    # of 3 s: the first request, and 6 more of half a second each: the last one begins as the time is over
    assert [size.requests for size in found] == [6, 6, 6, 4, 4]
    assert [size.p50_ms for size in found] == [500, 500, 500, 750, 750]
    found = measure(slow, ["q"], ["t"], 1000, 1, lambda: passed[0])
    assert [size.requests for size in found] == [3, 3, 3, 3, 3]
