"""The layer that knows Ray Data: shards stream through encode tasks, a pool of scoring actors and write tasks.

What was found by trying (Ray 2.60) and decides the shape:

* One shard is one row, and `target_max_block_size = 1` makes every row a block of its own, so that a read task that
  yields eight shards hands over eight blocks, one by one, and Ray's backpressure counts shards.
* Stages with the same resources are fused into one task, reading into the scoring actors too; a small difference in
  `num_cpus` keeps encode and write apart from score, so that tokenising overlaps with the forward pass.
* `max_errored_blocks` drops whole blocks: never used. Infrastructure failures are retried without limit by default.
* After a failure the pool's actors live until the dataset is collected, hence the `gc.collect()`.
"""

import gc
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, TaskPoolStrategy

from rankmill.batch.executor import receipts
from rankmill.batch.receipts import Receipt
from rankmill.batch.stages import Encode, Score, Write
from rankmill.batch.workers import Pool
from rankmill.errors import RankmillError
from rankmill.scoring.options import ScorerOptions

_ENCODE_CPUS = 0.5
_WRITE_CPUS = 0.25
_ENCODE_TASKS_PER_WORKER = 2  # enough to stay ahead of a GPU; more would only tokenise far ahead and hold memory

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class RayData:
    """Runs a job on the Ray cluster that this process is connected to."""

    pool: Pool

    @property
    def workers(self) -> int:
        """Scoring workers, at most."""
        return self.pool.max_workers

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Run `function` over `items` as Ray tasks, a few per CPU in flight."""
        task: Any = ray.remote(lambda item: function(item))  # noqa: PLW0108 - Ray refuses partials
        cpus: float = ray.cluster_resources().get("CPU", 1)  # type: ignore[no-untyped-call]
        limit = max(4, int(2 * cpus))
        running: list[ray.ObjectRef[Any]] = []
        try:
            for item in items:
                running.append(task.remote(item))
                if len(running) >= limit:
                    done, running = ray.wait(running)
                    yield from ray.get(done)
            while running:
                done, running = ray.wait(running)
                yield from ray.get(done)
        except ray.exceptions.RayError as error:
            raise own_error(error) from error

    def run_shards(self, encode: Encode, scorer: ScorerOptions, write: Write) -> Generator[Receipt]:
        """Stream every unit through the three stages."""
        if not encode.units:
            return
        with _context():
            dataset = self._dataset(encode, replace(scorer, device=self.pool.device, threads=self.pool.threads), write)
            try:
                batches: Any = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
                with closing(batches):  # whoever stops reading receipts stops the workers
                    for batch in batches:
                        yield from receipts(batch.to_pylist())
            except ray.exceptions.RayError as error:
                raise own_error(error) from error
            finally:
                del dataset
                gc.collect()

    def _dataset(self, encode: Encode, scorer: ScorerOptions, write: Write) -> Dataset:
        units = len(encode.units)
        readers = TaskPoolStrategy(size=min(units, _ENCODE_TASKS_PER_WORKER * self.pool.max_workers))
        return (
            ray.data.from_items([{"unit": unit} for unit in range(units)], override_num_blocks=units)
            .map_batches(encode, batch_size=None, batch_format="pyarrow", num_cpus=_ENCODE_CPUS, compute=readers)
            .map_batches(
                Score,
                fn_constructor_args=(scorer, write.options.fingerprint),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=self.pool.cpus,
                num_gpus=self.pool.gpus or None,
                compute=ActorPoolStrategy(min_size=self.pool.min_workers, max_size=self.pool.max_workers),
            )
            .map_batches(write, batch_size=1, batch_format="pyarrow", num_cpus=_WRITE_CPUS)
        )


def own_error(error: BaseException) -> BaseException:
    """Dig out the error that a stage raised on purpose from the wrappings it came back in; else the error itself."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, RankmillError) and not isinstance(seen, ray.exceptions.RayError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return error


@contextmanager
def _context() -> Iterator[None]:
    """Ray Data's settings for our pipelines, put back afterwards: they are global to the process."""
    context = DataContext.get_current()
    before = (context.target_max_block_size, context.max_consecutive_actor_init_deaths)
    context.target_max_block_size = 1
    context.max_consecutive_actor_init_deaths = 4  # a spot node that dies while a model loads must not end the job
    try:
        yield
    finally:
        context.target_max_block_size, context.max_consecutive_actor_init_deaths = before
