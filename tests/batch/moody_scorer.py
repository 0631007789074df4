"""A scorer for `--model python:...` that gives no finite score for some texts until it is mended."""

import zlib
from collections.abc import Sequence
from pathlib import Path


def score(_queries: Sequence[str], texts: Sequence[str]) -> list[float]:
    """A score that depends on the text alone; NaN for one with the word `NAN=FILE` while there is no such file."""
    return [float("nan") if _is_moody(text) else zlib.crc32(text.encode()) / 2**32 for text in texts]


def _is_moody(text: str) -> bool:
    files = [word.removeprefix("NAN=") for word in text.split() if word.startswith("NAN=")]
    return any(not Path(file).exists() for file in files)
