"""Scores that were computed before."""

import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rankmill.serving.cache import ScoreCache, keys
from rankmill.types import EncodedPairs

Pair = tuple[list[int], int]


def floats(values: list[float]) -> NDArray[np.float32]:
    return np.asarray(values, dtype=np.float32)


def encoded(pairs: list[Pair]) -> EncodedPairs:
    return EncodedPairs(
        np.asarray([token for tokens, _ in pairs for token in tokens], dtype=np.int32),
        np.cumsum([0, *(len(tokens) for tokens, _ in pairs)]),
        np.asarray([start for _, start in pairs], dtype=np.int32),
        np.zeros(len(pairs), dtype=np.bool_),
    )


@given(st.lists(st.tuples(st.lists(st.integers(0, 2), max_size=3), st.integers(0, 2)), max_size=30))
def test_keys_are_equal_exactly_where_the_forward_pass_reads_the_same(pairs: list[Pair]) -> None:
    found = keys(encoded(pairs))
    assert len(found) == len(pairs)
    for a, key_a in zip(pairs, found, strict=True):
        for b, key_b in zip(pairs, found, strict=True):
            assert (key_a == key_b) == (a == b)


def test_what_was_kept_is_found() -> None:
    cache = ScoreCache(10_000)
    cache.keep([b"a", b"b"], floats([1.5, -0.1]))
    np.testing.assert_array_equal(cache.find([b"b", b"c", b"a"]), floats([-0.1, np.nan, 1.5]))


@given(st.lists(st.integers(0, 9), max_size=60))
@settings(max_examples=50)
def test_the_least_recently_used_goes_first(asked: list[int]) -> None:
    cache = ScoreCache(4 * 240)
    recent: list[int] = []
    for number in asked:
        key = bytes([number])
        known = not np.isnan(cache.find([key])[0])
        assert known == (number in recent[-4:])
        cache.keep([key], floats([number]))
        recent = [other for other in recent if other != number] + [number]
    assert len(cache) == min(4, len(set(asked)))


def test_memory_stays_below_what_was_asked_for() -> None:
    allowed = 2_000_000
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        cache = ScoreCache(allowed)
        for number in range(30_000):
            pairs = encoded([([number, 1, 2], 1)])
            cache.keep(keys(pairs), floats([number]))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(cache) < 30_000
    assert allowed / 2 < after - before < allowed
