"""Queries that come with more than one text under one id: ranked together, as the ids say, and counted."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def several_texts(pairs: pa.Table, query_codes: NDArray[np.int64]) -> tuple[int, str]:
    """How many queries of a shard have pairs with different query texts, and the id of the first of them.

    Args:
        pairs: of the shard, with `query_id` and `query_key`, which has no nulls.
        query_codes: the ids as numbers by first appearance, shape (n,).
    """
    keys = pairs.column("query_key").to_numpy()
    _, firsts = np.unique(query_codes, return_index=True)
    found = query_codes[keys != keys[firsts][query_codes]] if len(keys) else query_codes
    if not len(found):
        return 0, ""
    return len(np.unique(found)), str(pairs.column("query_id")[int(firsts[found.min()])].as_py())
