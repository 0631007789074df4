"""How soon a job goes on that is almost done."""

import time
from contextlib import suppress

from rankmill.batch import job as batch
from rankmill.batch.executor import Executor
from rankmill.batch.machine import cores
from rankmill.batch.workers import SPARE_CPUS, Pool
from rankmill.bench.scale.executors import AllButTheLast, StoppedError, Watched
from rankmill.bench.scale.inputs import one_file
from rankmill.bench.scale.jobs import job_settings, places
from rankmill.bench.scale.measured import Figure, Measured, Say, run, sayer, show
from rankmill.cluster import connect
from rankmill.settings.rerank import RerankSettings
from rankmill.settings.scale import ResumeSettings
from rankmill.settings.storage import StorageSettings

_POOL = Pool(min_workers=1, max_workers=1, cpus=1, gpus=0, device="cpu", threads=1)
_NOTE = (
    "From the call of the command's function, without the start of Python and of Ray: checks, plan, claim, all commit "
    "records read. The first commit includes the start of the scoring worker and its process, and comes after the "
    "first scoring."
)


def measure(settings: ResumeSettings, say: Say) -> Measured:
    """Make a job of which one shard is open, in every place, and go on with it."""
    figures: list[Figure] = []
    with places(None, "scale") as (folder, found):
        source = folder / "in.parquet"
        one_file(source, settings.shards, settings.pairs)
        with connect(num_cpus=cores() + SPARE_CPUS):
            from rankmill.batch.pipeline import RayData  # noqa: PLC0415 - Ray, whose settings `connect` makes first

            few = folder / "few.parquet"
            one_file(few, 2, settings.pairs)
            one = job_settings(few, str(folder / "few"), StorageSettings(), settings.pairs)
            for _ in range(2):  # the first one warms Ray up
                figures = [_resumed("local folder, 1 committed shard", one, RayData(_POOL), "")[1]]
                one = one.model_copy(update={"output": f"{one.output}-again"})
            for place, (output, storage) in found.items():
                say(f"{place}: committing {settings.shards - 1:,} shards")
                wanted = job_settings(source, output, storage, settings.pairs)
                figures += _resumed(
                    f"{place}, {settings.shards - 1:,} committed shards", wanted, RayData(_POOL), "<= 10"
                )
    return run("resume", figures, _NOTE)


def _resumed(name: str, settings: RerankSettings, executor: Executor, target: str) -> list[Figure]:
    """Make the job, all shards but one committed, and go on with it."""
    with suppress(StoppedError):
        batch.run(batch.prepare(settings), AllButTheLast())
    watched = Watched(executor)
    begun = time.perf_counter()
    batch.run(batch.prepare(settings), watched)
    return [
        Figure(f"{name}: shard handed to Ray Data", watched.handed_over - begun, "s"),
        Figure(f"{name}: it is committed", watched.first_receipt - begun, "s", target),
        Figure(f"{name}: job finished", time.perf_counter() - begun, "s"),
    ]


def resume_command(settings: ResumeSettings) -> int:
    """`jobs/scale.py resume`."""
    return show(measure(settings, sayer(settings)), settings)
