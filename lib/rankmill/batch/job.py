"""The batch job, from settings to `_SUCCESS`: look, plan, gather, stream, finish.

Everything that can be refused is refused before a worker starts or a byte is written. The commit order is what makes a
job restartable: plan, job record, then for each shard rejected rows, part and commit record, and `_SUCCESS` last. The
same command run again finds the record, skips committed shards and does the rest.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import orjson
import pyarrow as pa

from rankmill.batch import group, join, manifest, output, plan_file, publish, reuse, scan, trec_run
from rankmill.batch.allowance import collect
from rankmill.batch.executor import Executor
from rankmill.batch.machine import peak_bytes
from rankmill.batch.parts import PartOptions, schema_of
from rankmill.batch.places import places
from rankmill.batch.plan import Plan, read_units
from rankmill.batch.planning import planned, understand
from rankmill.batch.progress import Work, watching
from rankmill.batch.read import Source
from rankmill.batch.receipts import Receipt, Totals, total
from rankmill.batch.retry import Retry
from rankmill.batch.stages import Encode, Write
from rankmill.batch.summary import JobSummary
from rankmill.batch.sweep import tidy
from rankmill.errors import InputError, StorageError, UsageError
from rankmill.scoring.card import ModelCard
from rankmill.scoring.options import ScorerOptions
from rankmill.settings.rerank import RerankSettings
from rankmill.settings.scorer import ScorerSettings
from rankmill.storage.lease import Lease, held
from rankmill.storage.probe import require_atomic_create
from rankmill.storage.store import Store
from rankmill.tables.locate import InputFile

_log = logging.getLogger("rankmill")

# leave to run a model's code is given on the command line, each time: whoever can write to a bucket must not give it
RECORDED_OPTIONS = tuple(sorted(ScorerSettings.model_fields.keys() - {"trust_remote_code"}))
"""Scorer settings that the job record keeps as they were asked for, the model pinned."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job that passed every check that needs neither Ray nor the weights."""

    settings: RerankSettings
    store: Store
    card: ModelCard
    scorer: ScorerOptions
    inspected: scan.Inspected
    record: output.JobRecord
    retry: Retry | None = None
    """Which rows of an earlier job are tried again; None for all of the input."""
    earlier: reuse.Earlier | None = None
    """The job whose scores are reused."""
    began: float = field(default_factory=time.monotonic)
    """When the first check began, by the monotonic clock of this process."""

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

    @property
    def part_schema(self) -> pa.Schema:
        """Columns of the parts."""
        return schema_of(self.part_options, chunked=self.settings.long_documents == "chunk")


def prepare(settings: RerankSettings, retry: Retry | None = None) -> Prepared:
    """Check the settings, the input, the model and the output against each other.

    Args:
        settings: of the job.
        retry: rank only the queries of these rows of the input, which an earlier job rejected.

    Raises:
        UsageError, InputError, ModelError: something cannot be used; all culprits of a kind are named.
        OutputConflictError: the output folder holds something else.
        StorageError: the store refused or cannot be reached.
    """
    began = time.monotonic()
    if settings.trec_run is not None:
        trec_run.refuse_destination(settings.trec_run)
    known = understand(settings)
    store = Store(settings.output, settings.storage)
    record = output.JobRecord(
        settings={
            "top_k": settings.top_k,
            "keep": list(settings.keep),
            "shape": settings.shape,
            "columns": settings.columns.model_dump(),
            "document_template": settings.document_template,
            "activation": settings.activation,
            "shard_pairs": settings.shard_pairs,
            "bad_files": settings.bad_files,
            "max_text_bytes": settings.max_text_bytes,
            "keep_scores": settings.keeps_scores,
            "retry_of": None if retry is None else retry.identity,
        },
        inputs=tuple((file.uri, file.size, file.version) for file in known.inspected.every_file),
        scorer=known.card.fingerprint,
        command={**places(settings), **{name: getattr(known.scorer, name) for name in RECORDED_OPTIONS}},
        unverified=known.inspected.unverified,
    )
    if known.card.listwise and settings.keeps_scores:
        raise UsageError(
            f"{'--reuse' if settings.reuse is not None else '--keep-scores'} keeps the score of each pair for use "
            f"elsewhere, and the model {known.card.model!r} scores lists: what it says of a document depends on the "
            "others of its query. Leave it out."
        )
    output.refuse_foreign(store, record)
    earlier = None
    if settings.reuse is not None and store.head(output.SUCCESS) is None:
        earlier = reuse.open_earlier(settings.reuse, settings.storage, store, known.card.fingerprint)
    job = Prepared(settings, store, known.card, known.scorer, known.inspected, record, retry, earlier, began)
    if settings.publish is not None:
        publish.refuse_types(job.part_schema)
    return job


def already_complete(job: Prepared) -> JobSummary | None:
    """The summary of a job that has its `_SUCCESS`, else None; does what `--trec-run` and `--publish` ask anew.

    Raises:
        StorageError: the output is not what its `_SUCCESS` says.
    """
    marker = job.store.read_if_present(output.SUCCESS)
    if marker is None:
        return None
    receipts, totals = output.finished_job(job.store, marker)
    if job.settings.trec_run is not None:
        trec_run.write(job.settings.trec_run, job.store, receipts)
    _publish(job, orjson.loads(job.store.read(output.JOB))["fingerprint"], receipts)
    unverified, peak = job.inspected.unverified, peak_bytes()
    return JobSummary(
        job.store.uri, job.card.model, totals, 0, 0.0, 0.0, 0.0, 0, peak, unverified, already_complete=True
    )


def run(job: Prepared, executor: Executor) -> JobSummary:
    """Run a prepared job.

    Raises:
        InputError: the input is damaged, empty, or changed while the job ran.
        TooManyRejectedError: more rows were rejected than --max-rejected allows.
        StorageError: the store refused, cannot be reached, or has no put-if-absent.
        OutputBusyError: another run holds the output, or took it over.
    """
    found = planned(job.store, job.settings, job.inspected, executor, job.retry)
    job = replace(job, record=replace(job.record, plan=found.described))
    require_atomic_create(job.store, allow_unsafe=job.settings.allow_unsafe_store)
    output.refuse_foreign(job.store, job.record)  # its words say more than those of a plan that differs
    plan_file.record(job.store, found.file)
    output.claim(job.store, job.record)
    with held(job.store, job.settings.storage.lease_seconds) as lease:
        return _work(job, executor, found.plan, lease)


def _work(job: Prepared, executor: Executor, plan: Plan, lease: Lease) -> JobSummary:
    """Do what is left of a job whose output this run holds."""
    receipts = output.finished_shards(job.store)
    if receipts:
        _log.info("continuing: %d of %d shards are finished", len(receipts), len(plan.shards))
    texts = job.inspected.texts
    source = Source(
        job.inspected.layout, plan.files, ids_only=texts is not None, reject_damaged=job.settings.bad_files == "reject"
    )
    left = {shard.index for shard in plan.shards} - receipts.keys()
    if not left.isdisjoint(np.unique(plan.scattered.shard).tolist()):
        if texts is None:
            plan, gathered = _gather(plan, source, job.store, executor)
        else:
            _log.info("joining %s pairs with their queries and documents", f"{plan.pairs:,}")
            plan, gathered = join.join(plan, source, texts, job.store, executor, left)
        source = replace(source, gathered=gathered)
    shards = [shard for shard in plan.shards if shard.index in left]
    encode = Encode(
        units=tuple(read_units(shards, plan.files)),
        source=source,
        scorer=job.scorer,
        trec_run=job.settings.trec_run is not None,
        unique=job.settings.require_unique,
        find=reuse.index(job.earlier, job.store, executor) if job.earlier is not None and shards else None,
        listwise=job.card.listwise,
    )
    write = Write(job.store, job.part_options, keep_scores=job.settings.keeps_scores)
    before = total(receipts.values())
    work = Work(len(plan.shards), plan.queries, plan.pairs)
    piped = time.monotonic()
    with (
        watching(work, before, quiet=job.settings.quiet) as report,
        closing(executor.run_shards(encode, job.scorer, write)) as stream,
    ):
        collect(_while_held(stream, lease), receipts.values(), report, job.settings.max_rejected, plan.pairs, job.store)
    lease.check()
    now = time.monotonic()
    totals = _finish(job, plan)
    seconds = now - piped
    workers = min(executor.workers, max(1, len(shards)))
    busy = totals.scoring_seconds - before.scoring_seconds
    return JobSummary(
        output=job.store.uri,
        model=job.card.model,
        totals=totals,
        run_pairs=totals.pairs_in - before.pairs_in,
        seconds=time.monotonic() - job.began,
        pipeline_seconds=seconds,
        scoring_share=busy / (seconds * workers) if seconds else 0.0,
        workers=workers,
        driver_peak_bytes=peak_bytes(),
        unverified_inputs=job.inspected.unverified,
        already_complete=False,
    )


def _while_held(stream: Iterator[Receipt], lease: Lease) -> Iterator[Receipt]:
    """Pass receipts on until another run has taken over."""
    for receipt in stream:
        lease.check()
        yield receipt


def _gather(plan: Plan, source: Source, store: Store, executor: Executor) -> tuple[Plan, tuple[InputFile, ...]]:
    pieces = group.chunks(plan)
    _log.info("gathering %s pairs of queries that lie in several places", f"{int(plan.scattered.pairs.sum()):,}")
    return group.complete(plan, executor.map(partial(group.gather, source=source, store=store), pieces))


def _finish(job: Prepared, plan: Plan) -> Totals:
    """Check that everything is there, then say so."""
    records = output.commit_records(job.store)  # what is there, whatever this process believes
    receipts = output.receipts_in(records, job.store)
    missing = [shard.index for shard in plan.shards if shard.index not in receipts]
    totals = total(receipt for _, receipt in sorted(receipts.items()))
    if missing or totals.pairs_in != plan.pairs:
        raise StorageError(
            f"{len(missing)} of {len(plan.shards)} shards left no commit record, {totals.pairs_in} of {plan.pairs} "
            f"pairs are accounted for in {job.store.uri}. Run the same command again."
        )
    _refuse_changed_input(job)
    manifest.refuse_lost_files(job.store, receipts)
    if job.settings.trec_run is not None:
        trec_run.write(job.settings.trec_run, job.store, receipts)
    written = manifest.publish(job.store, manifest.to_json(job.record.fingerprint, receipts, records))
    job.store.create(output.SUCCESS, output.success_body(job.record, totals, written))
    _publish(job, job.record.fingerprint, receipts)
    tidy(job.store, receipts)
    return totals


def _publish(job: Prepared, fingerprint: str, receipts: Mapping[int, Receipt]) -> None:
    """Let other engines know of a job that has its `_SUCCESS`, where that is asked for."""
    if job.settings.publish is not None:
        publish.publish(job.store, fingerprint, job.part_schema, receipts, nested=job.part_options.nested)
        _log.info("%s is a Delta table", job.store.uri)


def _refuse_changed_input(job: Prepared) -> None:
    """Look at the input once more: rows of a file that was replaced meanwhile may be old ones, new ones or both."""
    now = {file.uri: file for file in scan.look_again(job.settings)}
    changed = [file.uri for file in job.inspected.every_file if now.get(file.uri) != file]
    if changed:
        raise InputError(
            f"The input changed while the job ran, so that {job.store.uri} may mix old rows and new ones; it got no "
            "_SUCCESS. Start a new job with another --output.",
            [f"{uri} {'was replaced' if uri in now else 'is gone'}" for uri in changed],
        )
