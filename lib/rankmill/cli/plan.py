"""`rankmill plan`."""

import json
import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TypeVar

from rankmill.batch import job as batch
from rankmill.batch import output
from rankmill.batch.estimate import Estimate, Figures, estimate, read_figures, weight_bytes
from rankmill.batch.join_sample import sampled_pairs
from rankmill.batch.last_bench import recall
from rankmill.batch.planning import Understood, cut, understand
from rankmill.batch.read import Source
from rankmill.batch.sample import Sample, measure, sample
from rankmill.batch.scan import Inspected
from rankmill.errors import UsageError
from rankmill.scoring.load import load_encoder
from rankmill.settings.plan import PlanSettings
from rankmill.wording import counted

T = TypeVar("T")
R = TypeVar("R")

_THREADS = 16  # files are looked at side by side: the wait is latency


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a job would be."""

    files: int
    model: str
    precision: str
    shards: int
    finished_shards: int
    """Those that an earlier run of the same job left in the output."""
    queries: int
    pairs: int
    gathered_pairs: int
    """Of queries that lie in several places; all of a run that is joined."""
    joined: bool
    """Whether the input is a run: its texts are sampled apart from it, and how many are missing is not known."""
    largest_shard_pairs: int
    shard_bytes: int
    """Text and tokens of the largest shard; a worker holds a few shards."""
    sample: Sample
    tokens: int
    """Estimated; bytes for a model that does its own tokenising."""
    weight_bytes: int
    """Of the model in its precision: the least that a worker holds."""
    measured_peak_bytes: int | None
    """What `rankmill bench` saw a worker hold; None where it was not measured."""
    measured_on: str | None
    """The date of the figures of `rankmill bench`: those of --bench, else the last ones here of the same scorer."""
    estimate: Estimate | None
    """None without such figures."""


class _Threads:
    """Looks at files in this process."""

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Run `function` over `items`, in order."""
        with ThreadPoolExecutor(_THREADS) as pool:
            yield from pool.map(function, items)


def run(settings: PlanSettings) -> int:
    """Print what a job would be; returns the exit code 0.

    Raises:
        RankmillError: what `rankmill rerank` would refuse before it starts.
    """
    if settings.quiet:
        logging.getLogger("rankmill").setLevel(logging.ERROR)
    found = foresee(settings)
    sys.stdout.write(json.dumps(asdict(found)) + "\n" if settings.as_json else _text(found))
    return 0


def foresee(settings: PlanSettings) -> Foreseen:
    """Plan a job.

    Raises:
        RankmillError: what `rankmill rerank` would refuse before it starts.
    """
    job = batch.prepare(settings) if settings.output else None
    known = understand(settings) if job is None else Understood(job.inspected, job.card, job.scorer)
    card, inspected = known.card, known.inspected
    figures = recall(card.fingerprint, known.scorer) if settings.bench is None else read_figures(settings.bench, card)
    if figures is None and settings.gpu_price is not None:
        raise UsageError(
            "--gpu-price needs a measured rate, or there is no time to pay for: run `rankmill bench` with the same "
            "model here first, or give --bench FILE with what `rankmill bench --json` printed on another machine."
        )
    plan, _ = cut(settings, inspected, _Threads())
    encoder = load_encoder(known.scorer)
    if inspected.texts is None:
        seen = sample(plan, Source(inspected.layout, plan.files), encoder)
    else:
        seen = measure([sampled_pairs(inspected.texts)], encoder)
    largest = max((shard.pairs for shard in plan.shards), default=0)
    tokens = seen.tokens(plan.pairs)
    text_and_tokens = _text_bytes(inspected, plan.pairs) + 4 * tokens
    return Foreseen(
        files=len(inspected.every_file),
        model=card.model,
        precision=card.precision,
        shards=len(plan.shards),
        finished_shards=0 if job is None else len(output.finished_shards(job.store)),
        queries=plan.queries,
        pairs=plan.pairs,
        gathered_pairs=int(plan.scattered.pairs.sum()),
        joined=inspected.texts is not None,
        largest_shard_pairs=largest,
        shard_bytes=text_and_tokens * largest // max(plan.pairs, 1),
        sample=seen,
        tokens=tokens,
        weight_bytes=weight_bytes(card),
        measured_peak_bytes=None if figures is None else figures.peak_bytes,
        measured_on=None if figures is None else figures.machine.date,
        estimate=None if figures is None else _estimate(settings, seen, plan.pairs, figures),
    )


def _text_bytes(inspected: Inspected, pairs: int) -> int:
    """Of the input once it is joined, if it is."""
    texts = inspected.texts
    if texts is None:
        return inspected.text_bytes
    return int((texts.corpus.mean_bytes + texts.queries.mean_bytes) * pairs)


def _estimate(settings: PlanSettings, seen: Sample, pairs: int, figures: Figures) -> Estimate:
    """With as many GPUs as the most workers need; workers on CPUs share the machine that was measured."""
    workers = settings.workers[1] if settings.workers else 1
    gpus = 1.0 if settings.gpus_per_worker is None else settings.gpus_per_worker
    units = max(1, math.ceil(workers * gpus)) if figures.chosen.device == "cuda" else 1
    return estimate(seen, pairs, figures, units, settings.gpu_price)


def _text(found: Foreseen) -> str:
    seen = found.sample
    shards = f"{counted(found.shards, 'shard')} of {counted(found.largest_shard_pairs, 'pair')} at most"
    queries = counted(found.queries, "query", "queries")
    lengths = f"{seen.mean_tokens:,.0f} per pair, {seen.p95_tokens:,.0f} at the 95th percentile"
    measured = f"; `rankmill bench` measured {_size(found.measured_peak_bytes)}" if found.measured_peak_bytes else ""
    lines = [
        f"{counted(found.files, 'file')}, {queries}, {counted(found.pairs, 'pair')} in {shards}",
        f"model {found.model} in {found.precision}",
        f"about {found.tokens:,} tokens: {lengths}, {seen.truncated:.1%} cut ({counted(seen.pairs, 'pair')} sampled)",
        f"a worker holds {_size(found.weight_bytes)} of weights, a few shards of {_size(found.shard_bytes)}{measured}",
    ]
    if found.joined:
        lines.append(
            "the run is joined with its texts first. Counted: files, queries, pairs, shards. Estimated: tokens, sizes "
            "and what follows from them, from texts of --queries and --corpus that were sampled apart from the run; "
            "how many pairs have no text in them only the join tells"
        )
    elif found.gathered_pairs:
        lines.append(f"{found.gathered_pairs:,} pairs of queries that lie in several places are gathered first")
    if found.finished_shards:
        lines.append(f"{counted(found.finished_shards, 'shard')} finished already")
    if seen.rejected:
        lines.append(f"{counted(seen.rejected, 'row')} of the sample cannot be scored")
    if found.estimate is not None:
        lines.append(f"{_cost(found.estimate)}, from bench figures of {found.measured_on}")
    else:
        lines.append(
            "no time and cost: run `rankmill bench` with this model here, or give --bench FILE with what "
            "`rankmill bench --json` printed on a machine to be used"
        )
    return "\n".join(lines) + "\n"


def _cost(found: Estimate) -> str:
    cost = "" if found.cost is None else f", at a cost of {found.cost:,.2f}"
    return (
        f"about {timedelta(seconds=round(found.hours * 3600))} on {found.units:,} times a {found.unit} "
        f"({found.tokens_per_second:,.0f} tokens/s each): {found.unit_hours:,.2f} hours of them in all{cost}"
    )


def _size(count: int) -> str:
    value, units = float(count), ["B", "KiB", "MiB", "GiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:,.0f} {units[0]}" if value >= 10 else f"{value:,.1f} {units[0]}"
