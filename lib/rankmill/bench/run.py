"""The order of a measurement: load, warm up, rounds of us, the peers and the job, then single requests."""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rankmill.batch.machine import cores
from rankmill.bench import latency, memory
from rankmill.bench.contender import WARM_UP, Contender, timed
from rankmill.bench.flops import model_flops
from rankmill.bench.found import Bare, Found, Workload
from rankmill.bench.job import Grown, Job, Run, run_job, summary
from rankmill.bench.machine import this_machine
from rankmill.bench.matrix import MatrixProduct, best
from rankmill.bench.measure import rate
from rankmill.bench.pairs import read_pairs, texts_of, write_repeated
from rankmill.bench.peers import parse
from rankmill.bench.plan import Plan, plan
from rankmill.bench.subject import Subject, Survey, load, plain_folder, score_all, survey
from rankmill.scoring.files import read_json
from rankmill.scoring.options import ScorerOptions
from rankmill.settings.bench import BenchSettings

Say = Callable[[str], None]


@dataclass(slots=True)
class _Rounds:
    """What was measured round by round."""

    seconds: list[float] = field(default_factory=list)
    """Of the bare scorer."""
    matrix: list[dict[str, float]] = field(default_factory=list)
    """Floating-point operations per second of a matrix product through each engine at hand."""
    jobs: list[Run] = field(default_factory=list)
    peaks: tuple[int, int | None] = (0, None)


def run(settings: BenchSettings, say: Say) -> Found:
    """Measure.

    Args:
        settings: what.
        say: takes a line for people now and then.

    Raises:
        UsageError: a flag does not fit.
        InputError: the pairs cannot be used.
        ModelError: the model cannot be used.
        RankmillError: the job failed.
    """
    contenders = [Contender(wanted) for wanted in parse(settings.against)]
    pairs = read_pairs(settings.input, None if settings.all_pairs else settings.pairs)
    threads = settings.threads or cores()
    machine = this_machine(threads)
    subject = load(ScorerOptions.of(settings, threads=threads))
    queries, texts = texts_of(pairs)
    surveyed = survey(subject, queries, texts)
    workload = _workload(subject, surveyed, settings.rounds)
    say(
        f"{workload.pairs:,} pairs, {workload.mean_tokens:.0f} {workload.unit} on average, {workload.p95_tokens:.0f} "
        f"at the 95th percentile; {threads} threads; {', '.join(f'{n} {v}' for n, v in machine.versions.items())}"
    )
    memory.start()
    score_all(subject.scorer, queries[:WARM_UP], texts[:WARM_UP])
    with tempfile.TemporaryDirectory(prefix="rankmill-bench-") as name:
        folder = Path(name)
        rounds = _rounds(settings, subject, surveyed, pairs, contenders, folder, say)
        job = summary(rounds.jobs, [len(pairs) / second for second in rounds.seconds]) if rounds.jobs else None
        grown = _grown(settings, pairs, job, folder) if job is not None and settings.grow else None
    bare = _bare(subject, surveyed, rounds)
    return Found(
        machine=machine,
        model=subject.card.model,
        fingerprint=subject.card.fingerprint,
        workload=workload,
        chosen=subject.chosen,
        bare=bare,
        peers=tuple(contender.compared(rounds.seconds, surveyed) for contender in contenders),
        latency=_latency(settings, subject, queries, texts, bare.pairs_per_second),
        job=job,
        grown=grown,
        plan=_plan(settings, bare, job),
    )


def _rounds(
    settings: BenchSettings,
    subject: Subject,
    surveyed: Survey,
    pairs: pa.Table,
    contenders: Sequence[Contender],
    folder: Path,
    say: Say,
) -> _Rounds:
    """Interleave: us and every peer, a matrix product, the job; then the next round."""
    queries, texts = texts_of(pairs)
    source = folder / "pairs.parquet"
    pq.write_table(pairs, source)
    precision = subject.card.precision
    found = _Rounds()
    ours = partial(score_all, subject.scorer, queries, texts)

    @cache
    def plain() -> Path:
        scratch = folder / "model"
        scratch.mkdir()
        return plain_folder(subject, scratch)

    expected = ours()  # once, for everything to be warm; the peak is ours alone then
    found.peaks = memory.peaks()
    product = MatrixProduct(subject.device, precision, settings.threads or cores())
    for contender in contenders:
        contender.prepare(subject, plain, queries, texts)
    for number in range(settings.rounds):
        # each of them comes first in turn: what runs after what is worth some per cent
        for place in np.roll(np.arange(len(contenders) + 1), -number).tolist():
            if place:
                contenders[place - 1].run(expected, surveyed, precision)
            else:
                found.seconds.append(timed(ours)[0])
        found.matrix.append(product.rates())
        if settings.job:
            found.jobs.append(run_job(settings, source, folder / f"out-{number}"))
        say(_line(number, len(texts), found.seconds[-1], contenders, found.jobs))
    return found


def _line(number: int, pairs: int, seconds: float, contenders: Sequence[Contender], jobs: Sequence[Run]) -> str:
    rates = [f"bare {pairs / seconds:.1f} pairs/s"]
    rates += [
        f"{contender.wanted} {pairs * contender.rate_so_far:.1f}"
        for contender in contenders
        if contender.rate_so_far is not None
    ]
    rates += [f"job {jobs[-1].pairs_per_second:.1f}"] if jobs else []
    return f"round {number + 1}: {', '.join(rates)}"


def _workload(subject: Subject, surveyed: Survey, rounds: int) -> Workload:
    lengths = surveyed.lengths
    return Workload(
        pairs=len(lengths),
        unit="bytes" if subject.card.folder is None else "tokens",
        mean_tokens=float(lengths.mean()),
        p95_tokens=float(np.percentile(lengths, 95)),
        whole=int(surveyed.whole.sum()),
        rounds=rounds,
    )


def _bare(subject: Subject, surveyed: Survey, rounds: _Rounds) -> Bare:
    flops = _flops(subject, surveyed)
    seconds, matrix = rounds.seconds, best(rounds.matrix)
    fractions = (
        [flops / second / product for second, product in zip(seconds, matrix.rates, strict=True)]
        if flops and matrix
        else []
    )
    return Bare(
        pairs_per_second=rate(len(surveyed.lengths), seconds),
        tokens_per_second=rate(int(surveyed.lengths.sum()), seconds),
        padding_waste=None if surveyed.padding is None else surveyed.padding / int(surveyed.passes.sum()),
        model_flops_per_second=rate(flops, seconds) if flops else None,
        matrix_engine=matrix.engine if matrix else None,
        matrix_flops_per_second=statistics.median(matrix.rates) if matrix else None,
        matrix_fraction=statistics.median(fractions) if fractions else None,
        peak_bytes=rounds.peaks[0],
        gpu_peak_bytes=rounds.peaks[1],
    )


def _flops(subject: Subject, surveyed: Survey) -> float | None:
    card = subject.card
    # code that comes with a model may compute anything, whatever its config.json says
    if card.kind != "cross-encoder" or card.folder is None or subject.options.trust_remote_code:
        return None
    config = read_json(card.model, card.folder / "config.json")
    return model_flops(config, surveyed.passes, first_token=subject.first_token)


def _grown(settings: BenchSettings, pairs: pa.Table, job: Job, folder: Path) -> Grown:
    large = folder / "grown.parquet"
    write_repeated(pairs, settings.grow or 1, large)
    grown = run_job(settings, large, folder / "out-grown")
    return Grown(grown.pairs, grown.driver_peak_bytes, grown.driver_peak_bytes / job.driver_peak_bytes - 1)


def _latency(
    settings: BenchSettings, subject: Subject, queries: Sequence[str], texts: Sequence[str], pairs_per_second: float
) -> tuple[latency.Latency, ...]:
    if not settings.latency:
        return ()
    answer = partial(score_all, subject.scorer)
    return tuple(latency.measure(answer, queries, texts, pairs_per_second, settings.latency_seconds))


def _plan(settings: BenchSettings, bare: Bare, job: Job | None) -> Plan | None:
    if settings.plan_pairs is None:
        return None
    # of one GPU, or of this machine's cores; a job that uses several GPUs is no reason to expect more of each
    kept = 1.0 if job is None else min(1.0, job.to_bare)
    return plan(settings.plan_pairs, settings.plan_hours, bare.pairs_per_second * kept, settings.price_per_hour)
