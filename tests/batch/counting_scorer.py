"""A scorer for `--model python:...` that tells the tests of its process what it was asked."""

import os
import zlib
from collections.abc import Sequence

asked: list[tuple[str, str]] = []
"""Every (query, text) since the list was last cleared."""

SHIFT = "TEST_SCORE_SHIFT"
"""Variable of the environment: what is added to each score, as other machines find other last bits."""


def score(queries: Sequence[str], texts: Sequence[str]) -> list[float]:
    """A score that depends on both texts; NaN for a text with the word `NAN`."""
    shift = float(os.environ.get(SHIFT, "0"))
    asked.extend(zip(queries, texts, strict=True))
    return [
        float("nan") if "NAN" in text.split() else zlib.crc32(f"{query}\n{text}".encode()) / 2**32 + shift
        for query, text in zip(queries, texts, strict=True)
    ]
