"""Reciprocal rank fusion, against the formula written out."""

import asyncio

import pytest

from rankmill.errors import StorageError
from rankmill.retrieval.fusion import both, fuse


def test_scores_are_sums_of_reciprocal_ranks() -> None:
    fused = fuse([["a", "b", "c"], ["c", "a"]])
    assert [item for item, _ in fused] == ["a", "c", "b"]
    assert dict(fused) == pytest.approx({"a": 1 / 61 + 1 / 62, "c": 1 / 63 + 1 / 61, "b": 1 / 62})


def test_equal_scores_keep_the_order_of_appearance() -> None:
    assert [item for item, _ in fuse([["x"], ["y"], ["w", "x2"]])] == ["x", "y", "w", "x2"]


def test_nothing_in_nothing_out() -> None:
    assert fuse([[], []]) == []


def test_a_small_k_lets_the_first_rank_win() -> None:
    lists = [["a", "b"], ["c", "d", "b"]]
    assert fuse(lists, k=60)[0][0] == "b"
    assert fuse(lists, k=0) == [("a", 1.0), ("c", 1.0), ("b", pytest.approx(1 / 2 + 1 / 3)), ("d", 0.5)]


def test_a_search_that_fails_ends_the_other_one() -> None:
    ended = []

    async def fails() -> None:
        await asyncio.sleep(0)
        raise StorageError("no bucket")

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("the other one")

    async def go() -> None:
        with pytest.raises(StorageError, match="no bucket"):
            await both(waits(), fails())
        assert ended == ["the other one"]

    asyncio.run(go())
