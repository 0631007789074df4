"""Finding bad rows by cutting what fails in two."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankmill.batch.salvage import MOST_LOST, PieceFailedError, salvage


@given(st.data())
def test_bad_rows_are_lost_and_no_others(data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 300))
    rows = st.integers(0, max(0, size - 1))
    bad = data.draw(st.sets(rows, max_size=MOST_LOST)) if size else set()
    calls = 0

    def attempt(start: int, stop: int) -> list[int]:
        nonlocal calls
        calls += 1
        if bad.intersection(range(start, stop)):
            raise PieceFailedError("worker_crash", f"died at {start}")
        return list(range(start, stop))

    pieces, lost = salvage(size, attempt)
    assert [row for piece in pieces for row in piece] == [row for row in range(size) if row not in bad]
    assert [(one.unit, one.reason, one.detail) for one in lost] == [
        (row, "worker_crash", f"died at {row}") for row in sorted(bad)
    ]
    assert calls <= 1 + 2 * len(bad) * math.ceil(math.log2(max(2, size)))


def test_where_every_row_fails_it_stops_early() -> None:
    calls = 0

    def attempt(_start: int, _stop: int) -> None:
        nonlocal calls
        calls += 1
        raise PieceFailedError("worker_crash", "died")

    with pytest.raises(PieceFailedError):
        salvage(100_000, attempt)
    assert calls < 100


def test_a_shard_without_rows_has_none_to_blame() -> None:
    def attempt(_start: int, _stop: int) -> None:
        raise PieceFailedError("worker_crash", "died")

    with pytest.raises(PieceFailedError):
        salvage(0, attempt)
