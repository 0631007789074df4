"""Parts of encoded pairs, and several of them as one."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rankmill.types import EncodedPairs


def take(pairs: EncodedPairs, rows: NDArray[np.int64]) -> EncodedPairs:
    """The pairs at `rows`, in that order; `pairs` are not in chunks."""
    starts, ends = pairs.offsets[rows].tolist(), pairs.offsets[rows + 1].tolist()
    pieces = [pairs.token_ids[start:end] for start, end in zip(starts, ends, strict=True)]
    return EncodedPairs(
        np.concatenate(pieces) if pieces else pairs.token_ids[:0],
        _offsets(pairs.lengths[rows]),
        pairs.document_starts[rows],
        pairs.truncated[rows],
        lists=None if pairs.lists is None else pairs.lists[rows],
    )


def join(parts: Sequence[EncodedPairs]) -> EncodedPairs:
    """All pairs of at least one part, in order; none of them in chunks. Lists of different parts are different ones."""
    if len(parts) == 1:
        return parts[0]
    return EncodedPairs(
        np.concatenate([part.token_ids for part in parts]),
        _offsets(np.concatenate([part.lengths for part in parts])),
        np.concatenate([part.document_starts for part in parts]),
        np.concatenate([part.truncated for part in parts]),
        lists=_lists(parts),
    )


def token_counts(pairs: EncodedPairs, ids_per_token: int) -> NDArray[np.int64]:
    """Tokens of each pair, shape (n,), where so many ids are one; begun tokens count whole."""
    counts: NDArray[np.int64] = -(-pairs.lengths // ids_per_token)
    return counts


def _lists(parts: Sequence[EncodedPairs]) -> NDArray[np.int32] | None:
    lists = [part.lists for part in parts if part.lists is not None]
    if not lists:
        return None
    ends = np.cumsum([0, *(int(one[-1]) + 1 if len(one) else 0 for one in lists)], dtype=np.int32)
    return np.concatenate([one + before for one, before in zip(lists, ends, strict=False)])


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
