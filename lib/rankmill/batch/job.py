"""The batch job, from settings to `_SUCCESS`: look, plan, gather, stream, finish.

Everything that can be refused is refused before a worker starts or a byte is written. The commit order is what makes a
job restartable: job record, then for each shard rejected rows, part and commit record, and `_SUCCESS` last. The same
command run again finds the record, skips committed shards and does the rest.
"""

import logging
import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rankmill.batch import group, output, scan
from rankmill.batch.executor import Executor
from rankmill.batch.parts import PartOptions
from rankmill.batch.plan import Plan, default_shard_pairs, make_plan, read_units
from rankmill.batch.progress import Report, Work, watching
from rankmill.batch.read import Source
from rankmill.batch.receipts import Receipt, Totals, total
from rankmill.batch.stages import Encode, Write
from rankmill.batch.summary import JobSummary
from rankmill.errors import InputError, StorageError, TooManyRejectedError, UsageError
from rankmill.scoring.card import ModelCard
from rankmill.scoring.load import check_model
from rankmill.scoring.options import ScorerOptions
from rankmill.settings.rerank import RerankSettings
from rankmill.storage.store import Store
from rankmill.tables.locate import InputFile
from rankmill.tables.runs import Runs
from rankmill.tables.schema import OUTPUT_COLUMNS, Layout
from rankmill.tables.trec import open_text, write_run

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
    inspected = scan.inspect(settings.input, settings.columns, settings.keep, settings.document_template)
    options = ScorerOptions.of(settings)
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
    """The summary of a job that has its `_SUCCESS`, else None."""
    if job.store.read_if_present(output.SUCCESS) is None:
        return None
    totals = total(output.finished_shards(job.store).values())
    return JobSummary(job.store.uri, job.card.model, totals, 0, 0.0, 0.0, 0.0, 0, _peak_bytes(), already_complete=True)


def run(job: Prepared, executor: Executor) -> JobSummary:
    """Run a prepared job.

    Raises:
        InputError: the input is damaged, empty, or changed while the job ran.
        TooManyRejectedError: more rows were rejected than --max-rejected allows.
        StorageError: the store refused or cannot be reached.
    """
    started = time.monotonic()
    plan = _plan(job, executor)
    output.claim(job.store, job.record)
    receipts = output.finished_shards(job.store)
    if receipts:
        _log.info("continuing: %d of %d shards are finished", len(receipts), len(plan.shards))
    source = Source(job.inspected.layout, plan.files)
    left = {shard.index for shard in plan.shards} - receipts.keys()
    if any(run.shard in left for run in plan.scattered):
        plan, gathered = _gather(plan, source, job.store, executor)
        source = replace(source, gathered=gathered)
    shards = [shard for shard in plan.shards if shard.index in left]
    encode = Encode(tuple(read_units(shards, own=len(plan.files))), source, job.scorer)
    before = total(receipts.values())
    work = Work(len(plan.shards), plan.queries, plan.pairs)
    piped = time.monotonic()
    with watching(work, before, quiet=job.settings.quiet) as report:
        stream = executor.run_shards(encode, job.scorer, Write(job.store, job.part_options))
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
        driver_peak_bytes=_peak_bytes(),
        already_complete=False,
    )


def allowed_rejects(allowance: str, rows: int) -> int:
    """Rows that may be rejected: `100` is a number, `0.1%` a share of all rows, rounded down."""
    if allowance.endswith("%"):
        return int(rows * float(allowance.removesuffix("%")) / 100)
    return int(allowance)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _peak_bytes() -> int:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory too: on Linux its peak survives fork and exec
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


def _plan(job: Prepared, executor: Executor) -> Plan:
    files, layout = job.inspected.files, job.inspected.layout
    found = dict(executor.map(partial(_numbered_runs, files, layout), range(len(files))))
    runs = [found[index] for index in range(len(files))]
    pairs = sum(run.total_pairs for run in runs)
    if pairs == 0:
        raise InputError(f"--input {job.settings.input} holds no candidates; nothing was written.")
    size = job.settings.shard_pairs or default_shard_pairs(pairs, job.inspected.text_bytes)
    return make_plan(files, layout, runs, size)


def _numbered_runs(files: tuple[InputFile, ...], layout: Layout, index: int) -> tuple[int, Runs]:
    return index, scan.find_runs(files[index], layout)


def _gather(plan: Plan, source: Source, store: Store, executor: Executor) -> tuple[Plan, tuple[InputFile, ...]]:
    pieces = group.chunks(plan)
    rows = sum(run.piece.stop - run.piece.start for run in plan.scattered)
    _log.info("gathering %s rows of queries that lie in several places", f"{rows:,}")
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
    if job.settings.trec_run:
        with open_text(job.settings.trec_run, "w") as run:
            for table in ranked_parts(job.store, receipts):
                write_run(run, table.rename_columns(["query_id", "doc_id", "rank", "score"]), tag="rankmill")
    gathered = list(job.store.keys(group.FOLDER))
    job.store.create(output.SUCCESS, output.success_body(job.record, totals))
    if gathered:
        job.store.delete(gathered)  # copies of input rows, of no use once every shard is committed
    return totals


def ranked_parts(store: Store, receipts: dict[int, Receipt]) -> Iterator[pa.Table]:
    """Yield the rankings of each part, in order: query_id, doc_id, rank, score; one part is held at a time.

    The score is the logit: evaluation tools order by score, and scores after a sigmoid tie where logits do not.
    """
    for index in sorted(receipts):
        table = pq.read_table(pa.BufferReader(store.read(receipts[index].part)), page_checksum_verification=True)
        if "candidates" in table.column_names:
            candidates = table.column("candidates").combine_chunks()
            fields = candidates.flatten()
            queries = table.column("query_id").combine_chunks().take(pa.compute.list_parent_indices(candidates))
            yield pa.table({"query_id": queries, **{n: fields.field(n) for n in ("doc_id", "rank", "logit")}})
        else:
            yield table.select(["query_id", "doc_id", "rank", "logit"])
