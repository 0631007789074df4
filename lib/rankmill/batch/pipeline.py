"""The layer that knows Ray Data: shards stream through encode tasks into a pool of actors that score and write.

What was found by trying (Ray 2.60) and decides the shape:

* One shard is one row, and `target_max_block_size = 1` makes every row a block of its own, so that a read task that
  yields eight shards hands over eight blocks, one by one, and Ray's backpressure counts shards.
* Stages with the same resources are fused into one task, reading into the scoring actors too; a small difference in
  `num_cpus` keeps encode apart from score, so that tokenising overlaps with the forward pass.
* Every task costs, on the driver too, whatever it does: an actor therefore writes what it scored, in a thread beside
  the next forward pass, and nothing that a task is handed grows with the job (`rankmill.batch.encode_units`).
* `max_errored_blocks` drops whole blocks: never used. Ray repeats what died with its process or machine without limit,
  which is right for machines and wrong for rows that end a process: those are found in `rankmill.batch.guarded`.
* After a failure the pool's actors live until the dataset is collected, hence the `gc.collect()`.
* Ray's own watchdog counts blocks that move between stages; ours (`rankmill.batch.watchdog`) counts finished shards.
"""

import gc
import secrets
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, TaskPoolStrategy

from rankmill.batch import stacks
from rankmill.batch.encode_units import taken_apart
from rankmill.batch.executor import receipts
from rankmill.batch.guarded import GuardedEncoding, GuardedScore
from rankmill.batch.nodes import on_every_node
from rankmill.batch.receipts import Receipt
from rankmill.batch.score_and_write import CALLS, ScoreAndWrite
from rankmill.batch.scratch import Scratch
from rankmill.batch.shared_memory import memory_for
from rankmill.batch.stages import Encode, Write
from rankmill.batch.watchdog import no_progress_after
from rankmill.batch.workers import Pool
from rankmill.errors import RankmillError
from rankmill.scoring.options import ScorerOptions
from rankmill.storage.store import Store

_ENCODE_CPUS = 0.5
_ENCODE_TASKS_PER_WORKER = 2  # enough to stay ahead of a GPU; more would only tokenise far ahead and hold memory

_PASSING = ("StorageError", "ConnectionError", "TimeoutError", "ConnectionResetError", "Connection reset by peer")
"""Errors of reading and writing that a task is repeated for: a store that does not answer may do so again."""

_REPETITIONS = 3
_RAYS_ADVICE = "\nFailed to apply UDF transform after "  # how to set Ray Data up, appended to messages that are ours
_STACKS_SECONDS = 20.0
_SWEEP_SECONDS = 3.0  # whoever got a spot notice has to be gone soon

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class RayData:
    """Runs a job on the Ray cluster that this process is connected to."""

    pool: Pool
    no_progress_seconds: float = 0.0
    """After so long without a finished shard the run fails; 0 for never."""
    forward_timeout: float = 0.0
    """After so many seconds a forward pass hangs, and the row is looked for that it hangs on; 0 for never."""

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
        """Stream every unit through the stages; NoProgressError as `no_progress_seconds` says."""
        if not encode.units:
            return
        scratch = Scratch(secrets.token_hex(8))
        with (
            _context(),
            no_progress_after(
                self.no_progress_seconds, partial(_keep_stacks, scratch, write.store), self.missing
            ) as finished,
        ):
            shards = sum(len(unit.shards) for unit in encode.units)
            dataset = replace(self, pool=self.pool.for_shards(shards)).dataset(encode, scorer, write, scratch)
            try:
                batches: Any = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
                with closing(batches):  # whoever stops reading receipts stops the workers
                    for batch in batches:
                        finished()
                        yield from receipts(batch.to_pylist())
            except ray.exceptions.RayError as error:
                raise own_error(error) from error
            finally:
                del dataset
                gc.collect()
                _remove(scratch)

    def dataset(self, encode: Encode, scorer: ScorerOptions, write: Write, scratch: Scratch) -> Dataset:
        """All stages of a run, a receipt in each row; lazy, as Ray's datasets are."""
        stage, units = taken_apart(replace(encode, guard=GuardedEncoding(scratch, self.forward_timeout)))
        scorer = replace(scorer, device=self.pool.device, threads=self.pool.threads)
        readers = TaskPoolStrategy(size=min(len(units), _ENCODE_TASKS_PER_WORKER * self.pool.max_workers))
        encoded = ray.data.from_items(units, override_num_blocks=len(units)).map_batches(
            stage, batch_size=None, batch_format="pyarrow", num_cpus=_ENCODE_CPUS, compute=readers
        )
        return self.written(encoded, scorer, write, scratch)

    def written(self, encoded: Dataset, scorer: ScorerOptions, write: Write, scratch: Scratch) -> Dataset:
        """The stage behind the one that encodes: its rows are receipts."""
        memory = memory_for(self.workers, write.store if write.keep_scores else None)
        score = partial(GuardedScore, scorer, write.options.fingerprint, scratch, memory, self.forward_timeout)
        return encoded.map_batches(
            ScoreAndWrite,
            fn_constructor_args=(score, write),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=self.pool.cpus,
            num_gpus=self.pool.gpus or None,
            compute=ActorPoolStrategy(
                min_size=self.pool.min_workers,
                max_size=self.pool.max_workers,
                max_concurrent_calls_per_actor=CALLS,
                enable_true_multi_threading=True,
            ),
        )

    def missing(self) -> str | None:
        """A sentence on the machines that are waited for, if not even one worker has a place."""
        there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        wanted = {"CPU": self.pool.cpus, "GPU": self.pool.gpus}
        short = [f"{number:g} {name}" for name, number in wanted.items() if there.get(name, 0) < number]
        if not short:
            return None
        has = ", ".join(f"{there.get(name, 0):g} {name}" for name in wanted)
        return f"Waiting for machines: a scoring worker needs {' and '.join(short)}; the cluster has {has} now."


def _remove(scratch: Scratch) -> None:
    """Delete the folder on all machines; trouble with that is no trouble of the run, which may have some already."""
    scratch.remove()
    with suppress(Exception):
        if sum(node["Alive"] for node in ray.nodes()) > 1:  # type: ignore[no-untyped-call]
            tuple(on_every_node(scratch.remove, _SWEEP_SECONDS))


def _keep_stacks(scratch: Scratch, store: Store) -> str:
    """Write the stacks of all processes of the run to stderr and into the output; returns where they are."""
    parts = [f"Driver:\n{stacks.own()}"]
    for address, answer in on_every_node(partial(stacks.collect, scratch.stacks), _STACKS_SECONDS):
        parts.append(f"Machine {address}:\n{answer}")
    text = "\n\n".join(parts)
    sys.stderr.write(f"{text}\n")
    key = f"_rankmill/stacks-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.txt"
    try:
        store.create(key, text.encode())
    except RankmillError as error:
        return f"The stacks of all processes are on stderr; they could not be kept ({error})."
    return f"The stacks of all processes are in {store.join(key)}."


def own_error(error: BaseException) -> BaseException:
    """Dig out the error that a stage raised on purpose from the wrappings it came back in; else the error itself."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, RankmillError) and not isinstance(seen, ray.exceptions.RayError):
            seen.args = (str(seen.args[0]).partition(_RAYS_ADVICE)[0], *seen.args[1:])
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return error


@contextmanager
def _context() -> Iterator[None]:
    """Ray Data's settings for our pipelines, put back afterwards: they are global to the process."""
    context = DataContext.get_current()
    settings = {
        "target_max_block_size": 1,
        "max_consecutive_actor_init_deaths": 4,  # a spot node that dies while a model loads must not end the job
        "retried_map_errors": list(_PASSING),
        "max_map_retries": _REPETITIONS,
        "execution_no_progress_timeout_s": -1,
        "memory_usage_poll_interval_s": None,  # a thread per task, for figures that nobody reads
        "raise_original_map_exception": True,  # else what a stage raised does not come back, only its text
    }
    before = {name: getattr(context, name) for name in settings}
    _apply(context, settings)
    try:
        yield
    finally:
        _apply(context, before)


def _apply(context: DataContext, settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        setattr(context, name, value)
