"""Shards for scorers of lists: the documents of a query side by side, with the number of the list that they make."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rankmill.batch.freight import LIST
from rankmill.batch.score_files import with_keys


def lists_together(table: pa.Table) -> pa.Table:
    """Bring the rows of each list together.

    Args:
        table: rows of a shard in canonical form.

    Returns:
        The same rows with `query_key`, `pair_key`, their `position` in the shard and `list`: lists in the order of
        their first rows, the rows of each in theirs. A query id with several texts makes a list for each of them.
    """
    table = with_keys(table)
    ids, texts = _codes(table.column("query_id")), _codes(table.column("query_key"))
    _, first, where = np.unique(np.stack([ids, texts]), axis=1, return_index=True, return_inverse=True)
    lists = np.argsort(np.argsort(first))[where.reshape(-1)]
    order = np.argsort(lists, kind="stable")
    return (
        table.take(order)
        .append_column("position", pa.array(order))
        .append_column(LIST, pa.array(lists[order].astype(np.int32)))
    )


def _codes(column: pa.ChunkedArray) -> NDArray[np.int32]:
    codes: NDArray[np.int32] = pc.dictionary_encode(column.combine_chunks(), null_encoding="encode").indices.to_numpy()
    return codes
