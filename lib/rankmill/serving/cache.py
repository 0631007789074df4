"""Logits that a replica has computed before: the least recently used ones go first.

The key of a pair is a digest of exactly what the forward pass reads of it: its token ids and where the document starts.
Equal keys mean equal logits of this scorer, whatever the texts were, the limits or the instruction. A cache belongs to
one scorer, so its fingerprint need not be in the key, and a replica of a new version starts with an empty one.
"""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from rankmill.types import EncodedPairs

_ENTRY_BYTES = 240
"""What an entry takes in CPython 3.11, key, number and table included; see test_cache.py."""
_DIGEST_BYTES = 16


class ScoreCache:
    """Logits by key.

    Args:
        max_bytes: memory that it may take; at least one entry is kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._capacity = max(1, max_bytes // _ENTRY_BYTES)
        self._logits: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._logits)

    def find(self, found: Sequence[bytes]) -> NDArray[np.float32]:
        """Logits by key, shape (n,); NaN, which no logit is, where it is not known."""
        logits = np.full(len(found), np.nan, dtype=np.float32)
        for i, key in enumerate(found):
            logit = self._logits.get(key)
            if logit is not None:
                self._logits.move_to_end(key)
                logits[i] = logit
        return logits

    def keep(self, computed: Sequence[bytes], logits: NDArray[np.float32]) -> None:
        """Remember logits, one per key."""
        for key, logit in zip(computed, logits.tolist(), strict=True):
            self._logits[key] = logit
            self._logits.move_to_end(key)
        while len(self._logits) > self._capacity:
            self._logits.popitem(last=False)


def keys(pairs: EncodedPairs) -> list[bytes]:
    """A key per pair; `pairs` are not in chunks."""
    tokens = memoryview(pairs.token_ids.tobytes())
    width = pairs.token_ids.itemsize
    ends = (pairs.offsets * width).tolist()
    found = []
    for start, end, document in zip(ends, ends[1:], pairs.document_starts.tolist(), strict=False):
        digest = blake2b(tokens[start:end], digest_size=_DIGEST_BYTES, salt=int(document).to_bytes(8, "little"))
        found.append(digest.digest())
    return found
