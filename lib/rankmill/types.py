"""The values that cross layers: frozen, named in the field's own words.

Objects live at the edges (one request, one question); inside the batch pipeline the same facts travel as Arrow columns
(`rankmill.tables.schema`), which is an order of magnitude cheaper in time and memory.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class EncodedPairs:
    """`n` query-document pairs as token ids, ready for a forward pass, in input order.

    Ragged: pair `i` is `token_ids[offsets[i]:offsets[i + 1]]`, special tokens included.
    """

    token_ids: NDArray[np.int32]
    """Shape (total tokens,)."""
    offsets: NDArray[np.int64]
    """Shape (n + 1,); starts at 0."""
    document_starts: NDArray[np.int32]
    """Shape (n,): index, inside pair `i`, of the first token of the second segment (where token_type_ids become 1)."""
    truncated: NDArray[np.bool_]
    """Shape (n,): whether the query or the document of pair `i` was cut."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per pair, shape (n,)."""
        return np.diff(self.offsets)
