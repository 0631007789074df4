"""One slice ahead, in order, never more, and nothing left behind."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankmill.errors import ModelError
from rankmill.scoring.overlap import ahead, slices


def threads() -> int:
    return sum(thread.name.startswith("rankmill-ahead") for thread in threading.enumerate())


def test_results_in_order() -> None:
    assert list(ahead(lambda n: n * n, range(50))) == [n * n for n in range(50)]
    assert list(ahead(lambda _: None, range(3))) == [None] * 3
    assert list(ahead(str, [])) == []
    assert threads() == 0


def test_the_next_item_is_computed_while_the_caller_works() -> None:
    begun = [threading.Event() for _ in range(4)]

    def work(n: int) -> int:
        begun[n].set()
        return n

    for n in ahead(work, range(4)):
        assert all(event.wait(5) for event in begun[: min(n + 2, 4)]), "the next one runs by itself"


def test_at_most_two_results_at_a_time() -> None:
    held, most = 0, 0
    lock = threading.Lock()

    class Result:
        def __init__(self, _: int) -> None:
            nonlocal held, most
            with lock:
                held += 1
                most = max(most, held)

        def __del__(self) -> None:
            nonlocal held
            with lock:
                held -= 1

    pulled = 0

    def items() -> Iterator[int]:
        nonlocal pulled
        for n in range(20):
            pulled += 1
            yield n

    results = ahead(Result, items())
    for n in range(20):
        result = next(results)
        time.sleep(0.002)  # long enough for whatever would run on
        assert pulled <= n + 2
        del result
    results.close()
    assert most == 2


def test_exceptions_keep_their_type() -> None:
    def fail(n: int) -> int:
        if n == 2:
            raise ModelError("The third one.")
        return n

    seen: list[int] = []
    with pytest.raises(ModelError, match="The third one"):
        seen.extend(ahead(fail, range(5)))
    assert seen == [0, 1]

    def items() -> Iterator[int]:
        yield 1
        raise KeyError("input")

    with pytest.raises(KeyError, match="input"):
        list(ahead(str, items()))
    assert threads() == 0


def test_a_caller_that_stops_early_leaves_no_thread() -> None:
    done: list[int] = []

    def work(n: int) -> int:
        time.sleep(0.01)
        done.append(n)
        return n

    with closing(ahead(work, range(1000))) as results:
        assert next(results) == 0
    assert threads() == 0
    assert done in ([0], [0, 1])


@given(st.lists(st.text(max_size=9), max_size=40), st.integers(1, 7), st.integers(1, 25))
def test_slices_keep_everything_and_their_limits(texts: list[str], most: int, characters: int) -> None:
    pairs = [(str(i), text) for i, text in enumerate(texts)]
    found = list(slices(pairs, most, characters))
    assert [pair for part in found for pair in part] == pairs
    for part in found:
        assert 1 <= len(part) <= most
        assert len(part) == 1 or sum(len(text) for _, text in part) <= characters


def test_slices_are_cut_as_they_come() -> None:
    pulled = 0

    def pairs() -> Iterator[tuple[str, str]]:
        nonlocal pulled
        while True:
            pulled += 1
            yield "q", "text"

    endless = slices(pairs(), 10)
    assert len(next(endless)) == 10
    assert pulled == 11
