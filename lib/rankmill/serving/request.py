"""What every dialect is turned into, and what every dialect is made from."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """One request, checked, whatever its dialect."""

    queries: tuple[str, ...]
    """One query for all documents, or one for each of them."""
    documents: tuple[str, ...]
    """Texts as they are scored; titles and fields are joined by then."""
    model: str | None = None
    """Name or alias of a configured model; None is the default one."""
    top_n: int | None = None
    """Keep the best so many, at least 1; more than there are documents is all of them. None is all."""
    min_score: float | None = None
    """Leave out what scores less, after the activation."""
    activation: str = "model"
    """`model` (what its own files say), `raw` or `sigmoid`."""
    truncate: bool = True
    """Whether a pair that is too long is cut; if not, it is refused."""
    long_documents: str | None = None
    """`truncate` or `chunk`; None is as configured."""
    max_query_tokens: int | None = None
    """Most tokens read of a query; None is as configured."""
    max_document_tokens: int | None = None
    """Most tokens read of a document; None is as configured."""
    max_pair_tokens: int | None = None
    """Most tokens read of a pair, special tokens included; None is as configured."""
    instruction: str | None = None
    """For models that take one; None is as configured."""

    @property
    def pairs(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Queries and documents of equal length."""
        queries = self.queries * len(self.documents) if len(self.queries) == 1 else self.queries
        return queries, self.documents


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankResult:
    """What became of a request with `n` documents."""

    request_id: str
    model: str
    """The name that the client used, or that of the default model."""
    revision: str
    """Of the model's content."""
    created: int
    """Seconds since 1970."""
    logits: NDArray[np.float32]
    """Shape (n,), in the order of the documents."""
    scores: NDArray[np.float32]
    """Shape (n,): after the activation."""
    truncated: NDArray[np.bool_]
    """Shape (n,): whether query or document was cut."""
    order: NDArray[np.int64]
    """Shape (k,): positions of the documents to give back, best first; equal logits in the order of the documents."""
    tokens: int
    """Of all pairs, special tokens included."""
    seconds: float = 0.0
    """From the request's arrival to the scores; some servers report it in their bodies."""
    best: NDArray[np.int32] | None = None
    """Shape (n, 2): characters that the best chunk covers, -1 where there is one chunk only; None without chunks."""
