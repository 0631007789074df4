"""Which pairs a model cannot read whole, where a request wants its texts cut before, and nothing after."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rankmill.scoring.model import Encoder
from rankmill.serving.encoders import Variant
from rankmill.types import EncodedPairs


def too_long(
    pairs: EncodedPairs, queries: Sequence[str], documents: Sequence[str], encoder: Encoder, variant: Variant
) -> NDArray[np.bool_]:
    """Which pairs were cut by more than the limits that the request itself set for queries and documents.

    Encoders say whether a text was cut, not by which limit. So the texts of the pairs that were cut are encoded alone,
    next to nothing: what is cut there, was cut by its own limit; and a pair with fewer tokens than its two texts
    alone had no room for both. A limit within the few special tokens below the model's own counts as the request's
    where a document meets it alone.

    Args:
        pairs: n of them.
        queries: n strings.
        documents: n strings.
        encoder: that made `pairs` of them.
        variant: what the request changed of the model's limits.

    Returns:
        Shape (n,); all that is truncated where the request set no such limit.
    """
    if variant.max_query_tokens is None and variant.max_document_tokens is None:
        return pairs.truncated
    rows = np.flatnonzero(pairs.truncated)
    count = len(rows)
    nothing = [""] * count
    cut = rows.tolist()
    alone = encoder.encode([*(queries[i] for i in cut), *nothing, ""], [*nothing, *(documents[i] for i in cut), ""])
    of_queries, of_documents, fixed = np.split(alone.lengths, [count, 2 * count])
    found = np.zeros(len(pairs), dtype=np.bool_)
    if pairs.chunks is None:  # else there is room for everything
        found[rows] = pairs.lengths[rows] < of_queries + of_documents - fixed
    if variant.max_query_tokens is None:
        found[rows] |= alone.truncated[:count]
    if variant.max_document_tokens is None:
        found[rows] |= alone.truncated[count : 2 * count]
    return found
