"""What is read at /metrics."""

import re

SERIES = re.compile(r"(rankmill_[a-z_]+)(?:{(.*)})? ([0-9.e+-]+)")


def series(text: str) -> dict[str, float]:
    """Every series with its value, the labels as they are printed."""
    found = [match for line in text.splitlines() if (match := SERIES.fullmatch(line))]
    return {f"{match[1]}{{{match[2] or ''}}}": float(match[3]) for match in found}


def total(series: dict[str, float], name: str, *labels: str) -> float:
    """The sum of all series of a name that have these labels, written as they are printed."""
    return sum(
        value
        for found, value in series.items()
        if found.startswith(f"{name}{{") and all(label in found for label in labels)
    )
