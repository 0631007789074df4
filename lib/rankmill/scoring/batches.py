"""Micro-batches as the arrays that a network takes."""

import numpy as np
from numpy.typing import NDArray

from rankmill.types import EncodedPairs


def padded(
    pairs: EncodedPairs, rows: NDArray[np.int64], *, pad_id: int, segments: bool
) -> dict[str, NDArray[np.int64]]:
    """The pairs at `rows`, padded on the right to the longest of them.

    Args:
        pairs: all pairs.
        rows: positions into them, shape (n,), n >= 1.
        pad_id: what fills up `input_ids`.
        segments: whether `token_type_ids` are wanted: 0 up to `document_starts`, 1 from there, 0 in the padding.

    Returns:
        `input_ids`, `attention_mask` and maybe `token_type_ids`: int64, shape (n, longest).
    """
    lengths = pairs.lengths[rows]
    columns = np.arange(int(lengths.max()))
    real = columns < lengths[:, None]  # [n, longest]
    token_ids = np.full(real.shape, pad_id, dtype=np.int64)
    token_ids[real] = pairs.token_ids[_positions(pairs.offsets[rows], lengths)]
    inputs = {"input_ids": token_ids, "attention_mask": real.astype(np.int64)}
    if segments:
        inputs["token_type_ids"] = (real & (columns >= pairs.document_starts[rows][:, None])).astype(np.int64)
    return inputs


def packed(
    pairs: EncodedPairs, rows: NDArray[np.int64], *, first_position: int, segments: bool
) -> dict[str, NDArray[np.int64]]:
    """The pairs at `rows`, one after the other, without padding.

    Args:
        pairs: all pairs.
        rows: positions into them, shape (n,), n >= 1.
        first_position: position id of every pair's first token.
        segments: whether `token_type_ids` are wanted.

    Returns:
        `input_ids`, `position_ids` and maybe `token_type_ids`: int64, shape (total,); `offsets`: shape (n + 1,), where
        the pairs start and the last one ends.
    """
    lengths = pairs.lengths[rows]
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    within = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], lengths)  # position inside the pair
    arrays = {
        "input_ids": pairs.token_ids[_positions(pairs.offsets[rows], lengths)].astype(np.int64),
        "position_ids": within + first_position,
        "offsets": offsets,
    }
    if segments:
        arrays["token_type_ids"] = (within >= np.repeat(pairs.document_starts[rows], lengths)).astype(np.int64)
    return arrays


def _positions(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions `starts[i], …, starts[i] + lengths[i] - 1` for every i, one after the other."""
    ends = np.cumsum(lengths)
    positions: NDArray[np.int64] = np.arange(int(ends[-1])) + np.repeat(starts - (ends - lengths), lengths)
    return positions
