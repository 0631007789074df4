"""Encoded pairs on their way from a gateway to a replica: token ids in as few bytes as hold them.

200 kB of text are about 200 kB of int32, which are copied several times on their way, for every request.
"""

from dataclasses import replace

import numpy as np

from rankmill.types import EncodedPairs


def narrowed(pairs: EncodedPairs) -> EncodedPairs:
    """The same pairs with token ids of one, two or four bytes each; for `widened` alone, not for a forward pass."""
    ids = pairs.token_ids
    return replace(pairs, token_ids=ids.astype(np.min_scalar_type(int(ids.max())))) if len(ids) else pairs


def widened(pairs: EncodedPairs) -> EncodedPairs:
    """What `narrowed` was given: token ids are int32 again."""
    return replace(pairs, token_ids=pairs.token_ids.astype(np.int32, copy=False))
