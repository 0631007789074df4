"""What a gateway sends to a replica of a scorer."""

import numpy as np
import pytest

from rankmill.serving.wire import narrowed, widened
from rankmill.types import Chunks, EncodedPairs


def pairs(*ids: int, chunks: Chunks | None = None) -> EncodedPairs:
    """One pair with those token ids, or none without."""
    count = 1 if ids else 0
    return EncodedPairs(
        np.asarray(ids, dtype=np.int32),
        np.asarray([0, len(ids)][: count + 1], dtype=np.int64),
        np.full(count, 1, dtype=np.int32),
        np.ones(count, dtype=np.bool_),
        chunks,
    )


@pytest.mark.parametrize(
    ("largest", "size"), [(0, 1), (255, 1), (256, 2), (65_535, 2), (65_536, 4), (2**31 - 1, 4)], ids=str
)
def test_token_ids_travel_in_as_few_bytes_as_hold_them_and_arrive_as_they_were(largest: int, size: int) -> None:
    given = pairs(0, largest, 7)
    sent = narrowed(given)
    assert sent.token_ids.itemsize == size
    found = widened(sent)
    assert found.token_ids.dtype == np.int32
    for name in ("token_ids", "offsets", "document_starts", "truncated"):
        np.testing.assert_array_equal(getattr(found, name), getattr(given, name))


def test_chunks_and_nothing_at_all_travel_too() -> None:
    chunks = Chunks(np.asarray([2], np.int32), np.asarray([1, 2], np.int32), np.asarray([[0, 1], [1, 2]], np.int32))
    assert widened(narrowed(pairs(1, 2, 3, chunks=chunks))).chunks is chunks
    assert len(widened(narrowed(pairs()))) == 0
