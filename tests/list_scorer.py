"""A scorer of lists for `--model python:...`: each score tells of the whole list, so that none survives another one."""

import os
import zlib
from collections.abc import Sequence

asked: list[tuple[str, tuple[str, ...]]] = []
"""Every query with its documents since the list was last cleared, in this process."""


def list_scores(query: str, documents: Sequence[str]) -> list[float]:
    """A score that depends on the query, on all documents, their order, and the place among them."""
    whole = "\n".join([query, *documents])
    return [zlib.crc32(f"{whole}\n{place}".encode()) / 2**32 for place in range(len(documents))]


class Lists:
    """NaN for a document with the word `NAN`; a document with the word `EXIT` ends the process."""

    listwise = True

    def score(self, query: str, documents: Sequence[str]) -> list[float]:
        """Score a list."""
        asked.append((query, tuple(documents)))
        if any("EXIT" in document.split() for document in documents):
            os._exit(3)
        scores = list_scores(query, documents)
        return [
            float("nan") if "NAN" in document.split() else score
            for score, document in zip(scores, documents, strict=True)
        ]


def by_length(query: str, documents: Sequence[str]) -> list[float]:
    """A function is a scorer of lists too: how much longer a document is than the others."""
    mean = sum(map(len, documents)) / len(documents)
    return [len(document) - mean + len(query) / 1000 for document in documents]


by_length.listwise = True  # type: ignore[attr-defined]


def forgetful(_query: str, documents: Sequence[str]) -> list[float]:
    """Wrongly, a list's scores depend on how many lists were asked for before."""
    asked.append(("", ()))
    return [float(len(asked))] * len(documents)


forgetful.listwise = True  # type: ignore[attr-defined]


def undecided(_query: str, documents: Sequence[str]) -> list[float]:
    """Says something that is neither yes nor no."""
    return [0.0] * len(documents)


undecided.listwise = "yes"  # type: ignore[attr-defined]


def too_many(_query: str, documents: Sequence[str]) -> list[float]:
    """One score more than documents."""
    return [0.0] * (len(documents) + 1)


too_many.listwise = True  # type: ignore[attr-defined]
