"""What the second stage asks of the first: one seam, with LanceDB or Milvus behind it.

`LanceRetriever` (`retrieval.lance`) and `MilvusRetriever` (`retrieval.milvus`) are its implementations. It is
asynchronous, because LanceDB is (its work runs on threads of its own, outside of Python's lock) and because the callers
are servers; what has no asynchronous side, such as an embedding model, runs on a thread.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from rankmill.errors import UsageError

Mode = Literal["sparse", "dense", "hybrid"]
"""Full-text search, nearest vectors, or both joined by reciprocal rank fusion."""
MODES: tuple[Mode, ...] = get_args(Mode)

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to vectors whose inner product says how alike they are: n strings to shape (n, dimension)."""


@dataclass(frozen=True, slots=True)
class Found:
    """The documents of one query, best first; every field has one value a document."""

    ids: tuple[str | int, ...]
    """As they were in the corpus."""
    titles: tuple[str, ...]
    """Empty where there is none."""
    texts: tuple[str, ...]
    scores: tuple[float, ...]
    """Of the first stage, higher is better: BM25, an inner product, or the sum of reciprocal ranks."""
    columns: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """What else the index stores, by column."""

    def __len__(self) -> int:
        return len(self.ids)


class Retriever(Protocol):
    """Searches one index, which is whole and does not change while it is open."""

    @property
    def modes(self) -> tuple[Mode, ...]:
        """What it can do: `dense` and `hybrid` need an index with vectors, and the model that made them."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that a filter may name, `doc_id` and `title` among them."""

    async def search(self, query: str, k: int, mode: Mode, filter: str | None = None) -> Found:  # noqa: A002 - its name
        """Find documents.

        Args:
            query: what a person typed; none of its characters is an operator.
            k: most documents to find, at least 1.
            mode: one of `modes`.
            filter: which documents count at all, in the language of `retrieval.filters`; None is all.

        Returns:
            At most `k` documents, best first; full-text search finds none that shares no word with the query.

        Raises:
            UsageError: a mode that is not there, or a filter that is none; the sentence holds nothing of the query.
            StorageError: the index cannot be read.
        """

    def within(self, seconds: float) -> "Retriever":
        """The same index for somebody who waits so long; itself, where no search waits for another machine."""

    def close(self) -> None:
        """Let go of what it holds open; it is not used after."""


def modes_with(embed: Embed | None) -> tuple[Mode, ...]:
    """What an index can be searched by: by words alone where no model embeds the queries."""
    return MODES if embed is not None else MODES[:1]


def no_such_mode(mode: str, modes: tuple[Mode, ...]) -> UsageError:
    """What is said of a search by vectors that are not there."""
    if mode not in MODES:
        return UsageError(f"The mode must be one of {', '.join(MODES)}.")
    return UsageError(
        f"This index can be searched by {', '.join(modes)} only: no embedding model is configured for it."
    )
