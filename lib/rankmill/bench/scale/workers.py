"""How busy a job keeps many workers.

Only the forward pass is replaced, by sleep. The input lies in row groups of eight shards, which is what one task reads:
with small shards in row groups of hundreds of thousands of rows, decoding what comes before would be most of the work
(`one_file`). One machine runs what a cluster would share: driver, encoding and writing all compute on its cores.
"""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rankmill.batch import job as batch
from rankmill.batch.machine import cores
from rankmill.batch.receipts import Receipt
from rankmill.batch.workers import SPARE_CPUS, Pool
from rankmill.bench.scale.executors import Watched
from rankmill.bench.scale.inputs import one_file
from rankmill.bench.scale.jobs import job_settings
from rankmill.bench.scale.measured import Figure, Measured, Say, run, sayer, show
from rankmill.cluster import connect
from rankmill.errors import UsageError
from rankmill.settings.scale import WorkersSettings
from rankmill.settings.storage import StorageSettings

_FROM, _TO = 0.3, 0.8  # of the shards: before, processes start; after, workers run out of work
_NOTE = (
    "Read, encode, sleep, rank, write and commit to a local folder, through Ray Data as in every job. Efficiency: "
    "pairs per second between the commits of 30 % and 80 % of the shards, over those of workers that never wait."
)


def measure(settings: WorkersSettings, say: Say) -> Measured:
    """Run a job with workers that sleep.

    Raises:
        UsageError: the workers cannot be shared out over actors.
    """
    workers, per_actor = settings.workers, settings.workers_per_actor
    if workers % per_actor:
        raise UsageError(f"--workers {workers} is no multiple of --workers-per-actor {per_actor}: choose others.")
    shards = workers * settings.shards_per_worker
    pool = Pool(min_workers=workers, max_workers=workers, cpus=0, gpus=0, device="cpu", threads=1)
    with tempfile.TemporaryDirectory(prefix="rankmill-scale-") as name:
        folder = Path(name)
        one_file(folder / "in.parquet", shards, settings.pairs)
        wanted = job_settings(folder / "in.parquet", str(folder / "out"), StorageSettings(), settings.pairs)
        with connect(num_cpus=cores() + SPARE_CPUS):
            from rankmill.bench.scale.sleeping import SleepingWorkers  # noqa: PLC0415 - Ray comes after its settings

            say(f"{shards:,} shards of {settings.seconds:g} s on {workers} workers")
            watched = Watched(SleepingWorkers(pool, seconds=settings.seconds, per_actor=per_actor))
            before = time.process_time()
            batch.run(batch.prepare(wanted), watched)
            driver = time.process_time() - before
    seconds = _steady_seconds(watched.found, workers)
    rate = settings.pairs / seconds
    return run(
        "workers",
        [
            Figure("workers", workers, ""),
            Figure("shards", shards, ""),
            Figure("sleep", settings.seconds, "s/shard"),
            Figure("steady shards", 1 / seconds, "shards/s"),
            Figure("steady pairs", rate, "pairs/s"),
            Figure("of workers that never wait", workers * settings.pairs / settings.seconds, "pairs/s"),
            Figure("steady efficiency", rate * settings.seconds / (workers * settings.pairs), "", ">= 0.95"),
            Figure("driver's CPU", 1000 * driver / shards, "ms/shard"),
        ],
        _NOTE,
    )


def workers_command(settings: WorkersSettings) -> int:
    """`jobs/scale.py workers`."""
    return show(measure(settings, sayer(settings)), settings)


def _steady_seconds(found: Sequence[Receipt], workers: int) -> float:
    """Seconds per shard in the middle of a job.

    Workers that sleep equally long commit in waves. The middle begins and ends at the same place of a wave, or what is
    measured would depend on where in one it was cut.
    """
    times = sorted(receipt.committed_at for receipt in found)
    first = round(len(times) * _FROM)
    waves = max(1, int(len(times) * (_TO - _FROM)) // workers)
    last = min(first + waves * workers, len(times) - 1)
    return (times[last] - times[first]) / (last - first)
