"""Executors that watch a job, or only pretend to do it; what they run is `rankmill.batch.job` as it is."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pyarrow as pa

from rankmill.batch.executor import Executor, receipts
from rankmill.batch.output import COMMITS
from rankmill.batch.receipts import Receipt
from rankmill.batch.stages import Encode, Score, Write
from rankmill.scoring.options import ScorerOptions

T = TypeVar("T")
R = TypeVar("R")

_WRITERS = 32


class StoppedError(Exception):
    """Ends a job in the middle, on purpose."""


@dataclass(slots=True)
class Watched:
    """Another executor, with a note of when it did what."""

    executor: Executor
    handed_over: float = float("nan")
    """`time.perf_counter()` when the shards were handed over."""
    first_receipt: float = float("nan")
    """The same, when the first one was committed."""
    found: list[Receipt] = field(default_factory=list)

    @property
    def workers(self) -> int:
        """Scoring workers."""
        return self.executor.workers

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """As the other one."""
        return self.executor.map(function, items)

    def run_shards(self, encode: Encode, scorer: ScorerOptions, write: Write) -> Generator[Receipt]:
        """As the other one."""
        self.handed_over = time.perf_counter()
        for receipt in self.executor.run_shards(encode, scorer, write):
            if not self.found:
                self.first_receipt = time.perf_counter()
            self.found.append(receipt)
            yield receipt


@dataclass(frozen=True, slots=True)
class AllButTheLast:
    """Writes part and commit record of every shard but the last one, and then stops the job.

    One shard is really scored and written; the others are its own with other numbers. All shards must have equally
    many pairs.
    """

    workers: int = 1

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Run `function` over `items`, in order."""
        return map(function, items)

    def run_shards(self, encode: Encode, scorer: ScorerOptions, write: Write) -> Generator[Receipt]:
        """Commit.

        Raises:
            StoppedError: at the end.
        """
        score = Score(scorer, write.options.fingerprint)
        row = next(encode(pa.table({"unit": [0]})))
        (first,) = receipts(write(score(row)).to_pylist())
        yield first
        part = write.store.read(first.part)

        def commit(shard: int) -> Receipt:
            receipt = replace(first, shard=shard, part=f"part-{shard:06}.parquet")
            write.store.create(receipt.part, part)
            write.store.create(f"{COMMITS}/{shard:06}.json", receipt.to_json())
            return receipt

        _, *others = [shard.index for unit in encode.units for shard in unit.shards]
        with ThreadPoolExecutor(_WRITERS) as pool:
            yield from pool.map(commit, others[:-1])
        raise StoppedError("all but one shard are committed")


@dataclass(slots=True)
class Timed:
    """One shard after the other in this process, each stage timed; the scorer is waited for."""

    seconds: float
    """How long a shard takes to score, at least."""
    encoding: list[float] = field(default_factory=list)
    scoring: list[float] = field(default_factory=list)
    committing: list[float] = field(default_factory=list)
    """Seconds for each shard."""
    committing_cpu: list[float] = field(default_factory=list)
    """The same, of the CPU, all threads of this process together."""
    workers: int = 1

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Run `function` over `items`, in order."""
        return map(function, items)

    def run_shards(self, encode: Encode, scorer: ScorerOptions, write: Write) -> Generator[Receipt]:
        """Run every unit."""
        score = Score(scorer, write.options.fingerprint)
        begun = time.perf_counter()
        for number in range(len(encode.units)):
            for row in encode(pa.table({"unit": [number]})):
                encoded = time.perf_counter()
                result = score(row)
                time.sleep(max(0.0, self.seconds - (time.perf_counter() - encoded)))
                scored, cpu = time.perf_counter(), time.process_time()
                receipt = write(result)
                done = time.perf_counter()
                self.encoding.append(encoded - begun)
                self.scoring.append(scored - encoded)
                self.committing.append(done - scored)
                self.committing_cpu.append(time.process_time() - cpu)
                yield from receipts(receipt.to_pylist())
                begun = time.perf_counter()
