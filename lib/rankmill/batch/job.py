"""The batch job, from settings to `_SUCCESS`: look, plan, gather, stream, finish.

Everything that can be refused is refused before a worker starts or a byte is written. The commit order is what makes a
job restartable: job record, then for each shard rejected rows, part and commit record, and `_SUCCESS` last. The same
command run again finds the record, skips committed shards and does the rest.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from rankmill.batch import group, output, scan, trec_run
from rankmill.batch.executor import Executor
from rankmill.batch.machine import peak_bytes
from rankmill.batch.parts import PartOptions
from rankmill.batch.plan import Plan, default_shard_pairs, make_plan, read_units
from rankmill.batch.progress import Report, Work, watching
from rankmill.batch.read import Source
from rankmill.batch.receipts import Receipt, Totals, total
from rankmill.batch.stages import Encode, Write
from rankmill.batch.summary import JobSummary
from rankmill.errors import InputError, StorageError, TooManyRejectedError, UsageError
from rankmill.scoring.card import ModelCard
from rankmill.scoring.engines.choose import concrete
from rankmill.scoring.load import check_model
from rankmill.scoring.options import ScorerOptions
from rankmill.settings.rerank import RerankSettings
from rankmill.storage.store import STAGING, Store
from rankmill.tables.locate import InputFile, find_files
from rankmill.tables.runs import Runs
from rankmill.tables.schema import OUTPUT_COLUMNS, Layout

_log = logging.getLogger("rankmill")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job that passed every check that needs neither Ray nor the weights."""

    settings: RerankSettings
    store: Store
    card: ModelCard
    scorer: ScorerOptions
    inspected: scan.Inspected
    record: output.JobRecord

    @property
    def part_options(self) -> PartOptions:
        """What decides the look of a part."""
        chosen = self.settings.activation
        return PartOptions(
            layout=self.inspected.layout,
            files=tuple(file.uri for file in self.inspected.files),
            top_k=self.settings.top_k,
            nested=self.settings.shape == "nested",
            activation={"model": self.card.activation, "raw": "identity"}.get(chosen, chosen),
            model=self.card.model,
            revision=self.card.revision or "",
            fingerprint=self.card.fingerprint,
        )


def prepare(settings: RerankSettings) -> Prepared:
    """Check the settings, the input, the model and the output against each other.

    Raises:
        UsageError, InputError, ModelError: something cannot be used; all culprits of a kind are named.
        OutputConflictError: the output folder holds something else.
        StorageError: the store refused or cannot be reached.
    """
    already = [name for name in settings.keep if name in OUTPUT_COLUMNS or name == "candidates"]
    if already:
        raise UsageError(f"--keep {','.join(already)}: the output has a column of that name already.")
    if settings.trec_run is not None:
        trec_run.refuse_destination(settings.trec_run)
    inspected = scan.inspect(settings.input, settings.columns, settings.keep, settings.document_template)
    options = _scorer_options(settings)
    card = check_model(options)
    store = Store(settings.output)
    record = output.JobRecord(
        settings={
            "top_k": settings.top_k,
            "keep": list(settings.keep),
            "shape": settings.shape,
            "columns": settings.columns.model_dump(),
            "document_template": settings.document_template,
            "activation": settings.activation,
            "shard_pairs": settings.shard_pairs,
        },
        inputs=tuple((file.uri, file.size, file.version) for file in inspected.files),
        scorer=card.fingerprint,
    )
    output.refuse_foreign(store, record)
    pinned = replace(options, revision=card.revision)
    if card.folder is not None and card.revision is None and settings.model != "builtin":
        pinned = replace(pinned, model=str(card.folder))  # a relative path may mean something else to a worker
    return Prepared(settings, store, card, pinned, inspected, record)


def description(job: Prepared) -> str:
    """One line on what is going to be done."""
    files, card = job.inspected.files, job.card
    form = "one row per query" if job.inspected.layout.nested else "one row per pair"
    read = f"{len(files):,} {'file' if len(files) == 1 else 'files'} with {form}"
    if card.folder is None:
        return f"{read}; model {card.model}, which does its own tokenising"
    return (
        f"{read}; model {card.model}: {card.family}, "
        f"{card.parameters / 1e6:,.1f} M parameters, {card.max_length} tokens per pair, {card.precision}"
    )


def already_complete(job: Prepared) -> JobSummary | None:
    """The summary of a job that has its `_SUCCESS`, else None; writes the run of `--trec-run`, which may be new."""
    if job.store.read_if_present(output.SUCCESS) is None:
        return None
    receipts = output.finished_shards(job.store)
    if job.settings.trec_run is not None:
        trec_run.write(job.settings.trec_run, job.store, receipts)
    totals = total(receipts.values())
    return JobSummary(job.store.uri, job.card.model, totals, 0, 0.0, 0.0, 0.0, 0, peak_bytes(), already_complete=True)


def run(job: Prepared, executor: Executor) -> JobSummary:
    """Run a prepared job.

    Raises:
        InputError: the input is damaged, empty, or changed while the job ran.
        TooManyRejectedError: more rows were rejected than --max-rejected allows.
        StorageError: the store refused or cannot be reached.
    """
    started = time.monotonic()
    plan, shard_pairs = _plan(job, executor)
    job = replace(job, record=replace(job.record, plan=output.describe_plan(plan, shard_pairs)))
    output.claim(job.store, job.record)
    receipts = output.finished_shards(job.store)
    if receipts:
        _log.info("continuing: %d of %d shards are finished", len(receipts), len(plan.shards))
    source = Source(job.inspected.layout, plan.files)
    left = {shard.index for shard in plan.shards} - receipts.keys()
    if not left.isdisjoint(np.unique(plan.scattered.shard).tolist()):
        plan, gathered = _gather(plan, source, job.store, executor)
        source = replace(source, gathered=gathered)
    shards = [shard for shard in plan.shards if shard.index in left]
    encode = Encode(tuple(read_units(shards, plan.files)), source, job.scorer, job.settings.trec_run is not None)
    before = total(receipts.values())
    work = Work(len(plan.shards), plan.queries, plan.pairs)
    piped = time.monotonic()
    with (
        watching(work, before, quiet=job.settings.quiet) as report,
        closing(executor.run_shards(encode, job.scorer, Write(job.store, job.part_options))) as stream,
    ):
        receipts |= _collect(stream, before, report, job.settings.max_rejected, plan.pairs)
    now = time.monotonic()
    totals = _finish(job, plan, receipts)
    seconds = now - piped
    busy = totals.scoring_seconds - before.scoring_seconds
    return JobSummary(
        output=job.store.uri,
        model=job.card.model,
        totals=totals,
        run_pairs=totals.pairs_in - before.pairs_in,
        seconds=time.monotonic() - started,
        pipeline_seconds=seconds,
        scoring_share=busy / (seconds * executor.workers) if seconds else 0.0,
        workers=executor.workers,
        driver_peak_bytes=peak_bytes(),
        already_complete=False,
    )


def allowed_rejects(allowance: str, rows: int) -> int:
    """Rows that may be rejected: `100` is a number, `0.1%` a share of all rows, rounded down."""
    if allowance.endswith("%"):
        return int(rows * float(allowance.removesuffix("%")) / 100)
    return int(allowance)


def _scorer_options(settings: RerankSettings) -> ScorerOptions:
    """What every process of the job shall load: the precision is decided here, for workers see other machines."""
    gpus = settings.gpus_per_worker
    device = "auto" if gpus is None else "cuda" if gpus else "cpu"  # of the workers, whatever this machine has
    return concrete(replace(ScorerOptions.of(settings), device=device))


def _plan(job: Prepared, executor: Executor) -> tuple[Plan, int]:
    """The plan, and the shard size that was aimed at."""
    files, layout = job.inspected.files, job.inspected.layout
    found = dict(executor.map(partial(_numbered_runs, files, layout), range(len(files))))
    looks = [found[index] for index in range(len(files))]
    scan.refuse(job.settings.input, [look for look in looks if isinstance(look, str)])
    runs = [look for look in looks if not isinstance(look, str)]
    pairs = sum(run.total_pairs for run in runs)
    size = job.settings.shard_pairs or default_shard_pairs(pairs, job.inspected.text_bytes)
    return make_plan(files, layout, runs, size), size


def _numbered_runs(files: tuple[InputFile, ...], layout: Layout, index: int) -> tuple[int, Runs | str]:
    return index, scan.find_runs(files[index], layout)


def _gather(plan: Plan, source: Source, store: Store, executor: Executor) -> tuple[Plan, tuple[InputFile, ...]]:
    pieces = group.chunks(plan)
    _log.info("gathering %s pairs of queries that lie in several places", f"{int(plan.scattered.pairs.sum()):,}")
    return group.complete(plan, executor.map(partial(group.gather, source=source, store=store), pieces))


def _collect(
    stream: Iterator[Receipt], before: Totals, report: Report, allowance: str, pairs: int
) -> dict[int, Receipt]:
    """Take receipts as they come; stop as soon as too many rows are rejected."""
    totals, found = before, {}
    allowed = allowed_rejects(allowance, pairs)
    for receipt in stream:
        found[receipt.shard] = receipt
        totals = totals.plus(receipt)
        report(totals)
        _refuse_rejects(totals, allowed, allowance)
    _refuse_rejects(totals, allowed, allowance)
    return found


def _refuse_rejects(totals: Totals, allowed: int, allowance: str) -> None:
    if totals.rejected > allowed:
        raise TooManyRejectedError(
            f"{totals.rejected:,} rows could not be scored, of {totals.pairs_in:,} so far; --max-rejected {allowance} "
            f"allows {allowed:,}. _rejected/ in the output says which and why. Mend the input and start a new job, or "
            "run the same command with a larger --max-rejected: finished shards are kept."
        )


def _finish(job: Prepared, plan: Plan, receipts: dict[int, Receipt]) -> Totals:
    """Check that everything is there, then say so."""
    missing = [shard.index for shard in plan.shards if shard.index not in receipts]
    totals = total(receipts.values())
    if missing or totals.pairs_in != plan.pairs:
        raise StorageError(
            f"{len(missing)} of {len(plan.shards)} shards left no commit record, {totals.pairs_in} of {plan.pairs} "
            f"pairs are accounted for in {job.store.uri}. Run the same command again."
        )
    _refuse_changed_input(job)
    if job.settings.trec_run is not None:
        trec_run.write(job.settings.trec_run, job.store, receipts)
    leftovers = [*job.store.keys(group.FOLDER), *job.store.keys(STAGING)]
    job.store.create(output.SUCCESS, output.success_body(job.record, totals))
    if leftovers:
        job.store.delete(leftovers)  # copies of input rows, and what killed writers left: of no use any more
    return totals


def _refuse_changed_input(job: Prepared) -> None:
    """Look at the input once more: rows of a file that was replaced meanwhile may be old ones, new ones or both."""
    now = {file.uri: file for file in find_files(job.settings.input)}
    changed = [file.uri for file in job.inspected.files if now.get(file.uri) != file]
    if changed:
        raise InputError(
            f"The input changed while the job ran, so that {job.store.uri} may mix old rows and new ones; it got no "
            "_SUCCESS. Start a new job with another --output.",
            [f"{uri} {'was replaced' if uri in now else 'is gone'}" for uri in changed],
        )
