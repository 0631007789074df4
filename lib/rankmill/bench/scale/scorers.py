"""A scorer that computes nothing."""

from collections.abc import Sequence

CONSTANT = "python:rankmill.bench.scale.scorers:constant"
"""The model of the jobs that are run here."""


def constant(queries: Sequence[str], texts: Sequence[str]) -> list[float]:  # noqa: ARG001 - what a scorer is given
    """The same score for every pair."""
    return [0.0] * len(texts)
