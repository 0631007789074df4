"""`rankmill rerank`."""

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rankmill.batch import job as batch
from rankmill.batch.machine import cores
from rankmill.batch.summary import JobSummary
from rankmill.batch.workers import SPARE_CPUS, choose_pool
from rankmill.cluster import connect, require_resources
from rankmill.settings.rerank import RerankSettings

_log = logging.getLogger("rankmill")


def run(settings: RerankSettings) -> int:
    """Rerank and report; returns the exit code."""
    if settings.quiet:
        logging.getLogger("rankmill").setLevel(logging.ERROR)
    summary = rerank(settings)
    stream = sys.stderr if settings.as_json else sys.stdout
    if not settings.quiet:
        stream.write(summary.text() + "\n")
    if settings.as_json:
        sys.stdout.write(summary.to_json() + "\n")
    return 0


def rerank(settings: RerankSettings) -> JobSummary:
    """Run a batch job, from settings to `_SUCCESS`, on the cluster at hand or on this machine.

    Raises:
        RankmillError: see `rankmill.batch.job`; the class says what kind of trouble it is.
        KeyboardInterrupt: after Ctrl-C; finished shards are kept.
    """
    job = batch.prepare(settings)
    complete = batch.already_complete(job)
    if complete is not None:
        return complete
    _log.info("%s", batch.description(job))
    with connect(settings.address, num_cpus=cores() + SPARE_CPUS) as cluster, _stoppable(job.store.uri):
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

        return batch.run(job, RayData(pool))


@contextmanager
def _stoppable(output: str) -> Iterator[None]:
    """Say how to go on after Ctrl-C or SIGTERM (`ray job stop`, a spot notice), which end the job the same way."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        _log.warning("Stopped. Finished shards are kept in %s; run the same command to continue.", output)
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
