"""`rankmill rerank`."""

import logging
import sys

from rankmill.batch import job as batch
from rankmill.batch.machine import cores
from rankmill.batch.retry import Retry
from rankmill.batch.summary import JobSummary
from rankmill.batch.workers import SPARE_CPUS, choose_pool
from rankmill.cli.stop import stoppable
from rankmill.cluster import connect, require_resources
from rankmill.settings.rerank import RerankSettings
from rankmill.storage.lease import refuse_held
from rankmill.storage.probe import require_writable
from rankmill.wording import counted

_log = logging.getLogger("rankmill")


def run(settings: RerankSettings) -> int:
    """Rerank and report; returns the exit code."""
    if settings.quiet:
        logging.getLogger("rankmill").setLevel(logging.ERROR)
    report(rerank(settings), settings)
    return 0


def report(summary: JobSummary, settings: RerankSettings) -> None:
    """Print the summary, for a person or a machine."""
    stream = sys.stderr if settings.as_json else sys.stdout
    if not settings.quiet:
        stream.write(summary.text() + "\n")
    if settings.as_json:
        sys.stdout.write(summary.to_json() + "\n")


def rerank(settings: RerankSettings, retry: Retry | None = None) -> JobSummary:
    """Run a batch job, from settings to `_SUCCESS`, on the cluster at hand or on this machine.

    Args:
        settings: of the job.
        retry: rank only the queries of these rows of the input, which an earlier job rejected.

    Raises:
        RankmillError: see `rankmill.batch.job`; the class says what kind of trouble it is.
        KeyboardInterrupt: after Ctrl-C; finished shards are kept.
    """
    job = batch.prepare(settings, retry)
    complete = batch.already_complete(job)
    if complete is not None:
        return complete
    refuse_held(job.store)  # `run` looks once more; but Ray's start and the planning take minutes
    require_writable(job.store)
    _log.info("%s", _description(job))
    with (
        stoppable(job.store.uri) as listen,
        connect(settings.address, num_cpus=cores() + SPARE_CPUS) as cluster,
    ):
        listen()  # Ray has its own handler of SIGTERM by now
        pool = choose_pool(
            settings.workers,
            settings.gpus_per_worker,
            settings.cpus_per_worker,
            cores=cores() if cluster.local else max(1, int(cluster.cpus) - 1),
            gpus=cluster.gpus,
            local=cluster.local,
            elastic=cluster.elastic,
        )
        require_resources(
            cluster, workers=pool.min_workers, cpus_per_worker=pool.cpus, gpus_per_worker=pool.gpus, spare_cpus=1
        )
        from rankmill.batch.pipeline import RayData  # noqa: PLC0415 - imports Ray, whose settings `connect` makes first

        return batch.run(job, RayData(pool, settings.no_progress_timeout, settings.forward_timeout))


def _description(job: batch.Prepared) -> str:
    """One line on what is going to be done."""
    files, card = job.inspected.files, job.card
    form = "one row per query" if job.inspected.layout.nested else "one row per pair"
    if job.inspected.texts is not None:
        form = "a run, to be joined with queries and documents"
    read = f"{counted(len(files), 'file')} with {form}"
    if card.folder is None:
        return f"{read}; model {card.model}, which does its own tokenising"
    return (
        f"{read}; model {card.model}: {card.family}, "
        f"{card.parameters / 1e6:,.1f} M parameters, {card.max_length} tokens per pair, {card.precision}"
    )
