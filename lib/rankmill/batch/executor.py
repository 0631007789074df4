"""The seam between the job and whatever runs it: Ray Data in earnest (`pipeline`), or this process (`InProcess`)."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from rankmill.batch.memory import Memory
from rankmill.batch.receipts import Receipt
from rankmill.batch.score_once import score_once
from rankmill.batch.stages import Encode, Score, Write
from rankmill.scoring.options import ScorerOptions

T = TypeVar("T")
R = TypeVar("R")


class Executor(Protocol):
    """Runs a job's work."""

    @property
    def workers(self) -> int:
        """Scoring workers, at most."""

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Run `function` over `items`; yields results as they come, in any order. Errors come as they were raised."""

    def run_shards(self, encode: Encode, scorer: ScorerOptions, write: Write) -> Generator[Receipt]:
        """Run every unit of `encode` through encode, score and write; yields each shard's receipt once it is committed.

        Errors come as they were raised. Closing the generator ends the work.
        """


@dataclass(frozen=True, slots=True)
class InProcess:
    """One shard after the other in this process: for a laptop, a debugger, a test. No Ray."""

    workers: int = 1

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Run `function` over `items`, in order."""
        return map(function, items)

    def run_shards(self, encode: Encode, scorer: ScorerOptions, write: Write) -> Generator[Receipt]:
        """Run every unit; a shard is read when the one before it is committed."""
        score, memory = Score(scorer, write.options.fingerprint), Memory()
        for number in range(len(encode.units)):
            for row in encode(pa.table({"unit": [number]})):
                yield from receipts(write(score_once(row, memory, lambda _, left: score(left))).to_pylist())


def receipts(rows: Iterable[dict[str, Any]]) -> Iterator[Receipt]:
    """Receipts from the rows that `Write` returns."""
    return (Receipt(**row) for row in rows)
