"""The whole job around the scorer: `rankmill rerank`, run as a user would run it."""

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rankmill.errors import RankmillError
from rankmill.settings.bench import BenchSettings
from rankmill.settings.scorer import ScorerSettings


@dataclass(frozen=True, slots=True)
class Run:
    """One job's own summary."""

    pairs: int
    pairs_per_second: float
    tokens_per_second: float
    scoring_share: float
    """Of its workers' time, from 0 to 1."""
    driver_peak_bytes: int


@dataclass(frozen=True, slots=True)
class Job:
    """The job beside the bare scorer, medians over rounds."""

    pairs_per_second: float
    tokens_per_second: float
    to_bare: float
    """Its pairs per second over the bare scorer's: the median of the rounds' own ratios."""
    scoring_share: float
    driver_peak_bytes: int


@dataclass(frozen=True, slots=True)
class Grown:
    """The driver's memory with several times the pairs."""

    pairs: int
    driver_peak_bytes: int
    growth: float
    """Of the peak: 0.02 is 2 % more."""


def summary(runs: Sequence[Run], bare: Sequence[float]) -> Job:
    """Put rounds together.

    Args:
        runs: one per round.
        bare: the bare scorer's pairs per second in the same rounds.
    """
    return Job(
        pairs_per_second=statistics.median(run.pairs_per_second for run in runs),
        tokens_per_second=statistics.median(run.tokens_per_second for run in runs),
        to_bare=statistics.median(run.pairs_per_second / alone for run, alone in zip(runs, bare, strict=True)),
        scoring_share=statistics.median(run.scoring_share for run in runs),
        driver_peak_bytes=max(run.driver_peak_bytes for run in runs),
    )


def run_job(settings: BenchSettings, source: Path, output: Path) -> Run:
    """Start it as a process of its own, and take its summary.

    Raises:
        RankmillError: it failed; the end of what it said is quoted.
    """
    flags = ["--input", source, "--output", output, "--json", "--quiet", *passed_on(settings)]
    command = [sys.executable, "-m", "rankmill", "rerank", *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if done.returncode != 0:
        raise RankmillError(f"`{' '.join(command[1:])}` ended with code {done.returncode}:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Run(
        pairs=found["pairs_in"],
        pairs_per_second=found["pairs_per_second"],
        tokens_per_second=found["tokens"] / found["pipeline_seconds"],
        scoring_share=found["scoring_share"],
        driver_peak_bytes=found["driver_peak_bytes"],
    )


def passed_on(settings: BenchSettings) -> list[str]:
    """The flags that `rankmill rerank` gets as they were given here."""
    flags: list[str] = []
    for name in (*ScorerSettings.model_fields, "workers"):
        flag, value = name.replace("_", "-"), getattr(settings, name)
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            flags += [f"--{flag}", str(value)]
    return flags
