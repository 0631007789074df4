"""`rankmill bench`: what this machine does with the bare scorer, and what the job around it costs."""

import importlib.metadata
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich import box
from rich.console import Console
from rich.table import Table

from rankmill.batch.job import cores
from rankmill.demo.collection import build
from rankmill.errors import InputError, RankmillError
from rankmill.scoring.load import load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.scorer import Scorer
from rankmill.settings.bench import BenchSettings
from rankmill.settings.scorer import ScorerSettings

_VERSIONS = ("rankmill", "torch", "transformers", "ray", "pyarrow")


@dataclass(frozen=True, slots=True)
class Side:
    """One measured run."""

    pairs_per_second: float
    tokens_per_second: float


def run(settings: BenchSettings) -> int:
    """Measure and show; returns the exit code 0."""
    console = Console(highlight=False, quiet=settings.quiet, stderr=settings.as_json)
    with tempfile.TemporaryDirectory(prefix="rankmill-bench-") as folder, _pairs(settings) as table:
        found = measure(settings, table, Path(folder), console)
    console.print(_table(found))
    if settings.as_json:
        sys.stdout.write(json.dumps(found) + "\n")
    return 0


def measure(settings: BenchSettings, pairs: pa.Table, folder: Path, console: Console) -> dict[str, Any]:
    """Run both sides, round by round, and collect everything there is to report."""
    threads = cores()
    options = ScorerOptions.of(settings, threads=threads)
    scorer = load_scorer(options)
    lengths = scorer.encode(*_texts(pairs)).lengths
    console.print(
        f"{len(pairs):,} pairs, {lengths.mean():.0f} tokens on average, {np.percentile(lengths, 95):.0f} at the 95th "
        f"percentile; {threads} cores; {', '.join(f'{n} {v}' for n, v in versions().items())}"
    )
    source = folder / "pairs.parquet"
    pq.write_table(pairs, source)
    _bare(scorer, pairs.slice(0, min(len(pairs), 200)))  # warm-up
    bare: list[Side] = []
    jobs: list[Side] = []
    summaries: list[dict[str, Any]] = []
    for number in range(settings.rounds):
        bare.append(_bare(scorer, pairs))
        summaries.append(_job(settings, source, folder / f"out-{number}"))
        jobs.append(
            Side(summaries[-1]["pairs_per_second"], summaries[-1]["tokens"] / summaries[-1]["pipeline_seconds"])
        )
        rates = f"bare {bare[-1].pairs_per_second:.1f} pairs/s, job {jobs[-1].pairs_per_second:.1f} pairs/s"
        console.print(f"round {number + 1}: {rates}")
    found = {
        "pairs": len(pairs),
        "mean_tokens": float(lengths.mean()),
        "p95_tokens": float(np.percentile(lengths, 95)),
        "cores": threads,
        "machine": platform.platform(),
        "versions": versions(),
        "bare_pairs_per_second": statistics.median(side.pairs_per_second for side in bare),
        "bare_tokens_per_second": statistics.median(side.tokens_per_second for side in bare),
        "job_pairs_per_second": statistics.median(side.pairs_per_second for side in jobs),
        "job_tokens_per_second": statistics.median(side.tokens_per_second for side in jobs),
        "job_to_bare": statistics.median(
            job.pairs_per_second / alone.pairs_per_second for job, alone in zip(jobs, bare, strict=True)
        ),
        "scoring_share": statistics.median(summary["scoring_share"] for summary in summaries),
        "driver_peak_bytes": max(summary["driver_peak_bytes"] for summary in summaries),
    }
    if settings.grow:
        large = folder / "grown.parquet"
        _write_repeated(pairs, settings.grow, large)
        grown = _job(settings, large, folder / "out-grown")
        found |= {
            "grown_pairs": grown["pairs_in"],
            "grown_driver_peak_bytes": grown["driver_peak_bytes"],
            "driver_memory_growth": grown["driver_peak_bytes"] / found["driver_peak_bytes"] - 1,
        }
    return found


def versions() -> dict[str, str]:
    """Releases that the figures depend on."""
    return {name: importlib.metadata.version(name) for name in _VERSIONS}


@contextmanager
def _pairs(settings: BenchSettings) -> Iterator[pa.Table]:
    """The pairs to measure with: `query_id, query, doc_id, title, text`, whole queries."""
    if settings.input is None:
        with tempfile.TemporaryDirectory(prefix="rankmill-bench-") as folder:
            yield _first(build(Path(folder)).candidates, settings)
        return
    table = pq.read_table(settings.input)
    missing = {"query_id", "query", "doc_id", "text"} - set(table.column_names)
    if missing:
        raise InputError(
            f"--input {settings.input} lacks {', '.join(sorted(missing))}; bench reads pairs from Parquet."
        )
    yield _first(table, settings)


def _first(table: pa.Table, settings: BenchSettings) -> pa.Table:
    if settings.all_pairs or settings.pairs is None or len(table) <= settings.pairs:
        return table
    last = table.column("query_id")[settings.pairs - 1]
    ids = pc.equal(table.column("query_id"), last)
    end = int(np.flatnonzero(ids.to_numpy(zero_copy_only=False))[-1]) + 1
    return table.slice(0, end)


def _texts(pairs: pa.Table) -> tuple[list[str], list[str]]:
    text = pairs.column("text").to_pylist()
    titles = pairs.column("title").to_pylist() if "title" in pairs.column_names else [None] * len(text)
    documents = [f"{title} {body}" if title else body for title, body in zip(titles, text, strict=True)]
    return pairs.column("query").to_pylist(), documents


def _bare(scorer: Scorer, pairs: pa.Table) -> Side:
    """Tokenise and score, nothing else."""
    queries, documents = _texts(pairs)
    started = time.perf_counter()
    encoded = scorer.encode(queries, documents)
    scorer.logits(encoded)
    seconds = time.perf_counter() - started
    return Side(len(pairs) / seconds, int(encoded.lengths.sum()) / seconds)


def _job(settings: BenchSettings, source: Path, output: Path) -> dict[str, Any]:
    """Run `rankmill rerank` as a user would, and take its own summary."""
    flags: list[object] = ["--input", source, "--output", output, "--json", "--quiet"]
    for name in (*ScorerSettings.model_fields, "workers"):
        value = getattr(settings, name)
        if value is not None:
            flags += [f"--{name.replace('_', '-')}", value]
    command = [sys.executable, "-m", "rankmill", "rerank", *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if done.returncode != 0:
        raise RankmillError(f"`{' '.join(command[1:])}` ended with code {done.returncode}:\n{done.stderr[-2000:]}")
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary


def _write_repeated(pairs: pa.Table, times: int, path: Path) -> None:
    """Write the pairs several times over, as queries of their own; one copy is held at a time."""
    ids = pairs.column("query_id").cast(pa.string())
    with pq.ParquetWriter(path, pairs.set_column(0, "query_id", ids).schema) as writer:
        for copy in range(times):
            renamed = pc.binary_join_element_wise(pa.scalar(str(copy)), ids, "-")
            writer.write_table(pairs.set_column(pairs.schema.get_field_index("query_id"), "query_id", renamed))


def _table(found: dict[str, Any]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "pairs/s", "tokens/s"):
        shown.add_column(heading, justify="right" if heading else "left")
    for side in ("bare", "job"):
        name = "bare scorer, one process" if side == "bare" else "whole job"
        shown.add_row(name, f"{found[f'{side}_pairs_per_second']:.1f}", f"{found[f'{side}_tokens_per_second']:,.0f}")
    shown.add_row("job / bare", f"{found['job_to_bare']:.2f}", "")
    shown.add_row("driver's peak memory", f"{found['driver_peak_bytes'] / 2**20:,.0f} MiB", "")
    if "grown_pairs" in found:
        growth = f"{found['driver_memory_growth']:+.1%}"
        shown.add_row(f"the same with {found['grown_pairs']:,} pairs", growth, "")
    return shown
