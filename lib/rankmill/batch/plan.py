"""The plan: which rows make which shard. Pure functions over runs; nothing here reads a file or knows Ray.

A shard holds whole queries. Queries whose rows lie together are cut where they lie, so that a shard is a range of rows
of one file and costs no shuffle. Queries in several places (several files, or not contiguous) are scattered: their
rows are first gathered into files of our own, sorted by shard (`rankmill.batch.group`), and then read like the rest.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rankmill.tables.locate import InputFile
from rankmill.tables.runs import Runs
from rankmill.tables.schema import Layout

_SHARDS_WANTED = 64  # enough to keep workers busy and progress visible ...
_MIN_SHARD_PAIRS, _MAX_SHARD_PAIRS = (
    256,
    8192,
)  # ... unless shards get too small to be worth a task, or too large to redo
_MAX_SHARD_BYTES = 128 << 20  # of text; a shard in flight is held a few times
_PASSES = 8  # over a compressed file, at most; each decompresses what comes before its part too
_UNIT_SHARDS = 8  # shards that one read task yields, so that a row group is decoded once, not once a shard


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of rows of one file."""

    file: int
    """Index into the plan's files; from `len(plan.files)` on: files made by `rankmill.batch.group`."""
    start: int
    stop: int
    offset: int
    """Byte where row `start` begins (JSONL), else 0."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A slice of the input, whole queries only: the unit of work, retry and commit."""

    index: int
    queries: int
    pairs: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Scattered:
    """Runs of rows whose query also has rows elsewhere, in input order: an element of each array per run.

    There may be as many as the input has rows; hence arrays, of a few bytes a run.
    """

    file: NDArray[np.int32]
    """Index into the plan's files."""
    query: NDArray[np.uint64]
    """Hash of the query id. Shards hold ranges of it: all that the next one has is larger."""
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    offset: NDArray[np.int64]
    """Byte where row `start` begins (JSONL), else 0."""
    pairs: NDArray[np.int64]
    shard: NDArray[np.int32]
    """The shard that will hold the run."""

    def __len__(self) -> int:
        return len(self.shard)

    @classmethod
    def none(cls) -> "Scattered":
        """No runs."""
        number, row = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64)
        return cls(number, np.zeros(0, dtype=np.uint64), row, row, row, row, number)

    def __getitem__(self, runs: slice) -> "Scattered":
        """Some of the runs, one after the other."""
        return Scattered(*(getattr(self, field.name)[runs] for field in fields(self)))


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides what the output holds, apart from the model."""

    files: tuple[InputFile, ...]
    layout: Layout
    shards: tuple[Shard, ...]
    scattered: Scattered
    """Runs to gather before the shards that hold them (those without pieces) can be read."""
    queries: int
    pairs: int


@dataclass(frozen=True, slots=True)
class ReadUnit:
    """Consecutive shards of one file, read by one task in one pass."""

    shards: tuple[Shard, ...]


def default_shard_pairs(pairs: int, text_bytes: int) -> int:
    """Pairs per shard: 64 shards, of 256 to 8,192 pairs, of 128 MiB of text at most.

    Args:
        pairs: pairs of the input.
        text_bytes: bytes of the input, uncompressed.
    """
    by_count = min(max(-(-pairs // _SHARDS_WANTED), _MIN_SHARD_PAIRS), _MAX_SHARD_PAIRS)
    by_bytes = max(1, _MAX_SHARD_BYTES * max(pairs, 1) // max(text_bytes, 1))
    return min(by_count, by_bytes)


def make_plan(
    files: Sequence[InputFile], layout: Layout, runs: Sequence[Runs], shard_pairs: int, *, gather_all: bool = False
) -> Plan:
    """Cut the input into shards.

    Args:
        files: the input files.
        layout: how to read them.
        runs: where each query's rows lie, one per file.
        shard_pairs: pairs per shard, aimed at: a query is never cut, so a shard may hold more.
        gather_all: gather every query, for runs that are few and far apart.
    """
    unique, counts = np.unique(np.concatenate([run.query for run in runs]), return_counts=True)
    split = unique if gather_all else unique[counts > 1]
    shards: list[Shard] = []
    for index, run in enumerate(runs):
        shards += _cut(index, run, np.isin(run.query, split), shard_pairs, len(shards))
    scattered, gathered = _gather(runs, split, shard_pairs, len(shards))
    shards += gathered
    return Plan(
        files=tuple(files),
        layout=layout,
        shards=tuple(shards),
        scattered=scattered,
        queries=len(unique),
        pairs=sum(run.total_pairs for run in runs),
    )


def with_pieces(plan: Plan, pieces: dict[int, tuple[Piece, ...]]) -> Plan:
    """Give the gathered shards the places of their rows."""
    shards = tuple(replace(shard, pieces=pieces.get(shard.index, shard.pieces)) for shard in plan.shards)
    return replace(plan, shards=shards, scattered=plan.scattered[:0])


def read_units(shards: Sequence[Shard], files: Sequence[InputFile]) -> list[ReadUnit]:
    """Group consecutive shards of one input file into units that one task reads in one pass.

    Gathered shards are units of their own. A compressed file is read from its start by every unit, so it has few.

    Args:
        shards: what is left to do, in order.
        files: the input files; a shard of a file after those is a gathered one.
    """
    file_of = [shard.pieces[0].file if shard.pieces else len(files) for shard in shards]
    shards_of = Counter(file_of)
    units: list[list[Shard]] = []
    last = -1
    for shard, file in zip(shards, file_of, strict=True):
        size = unit_size(files[file], shards_of[file], _UNIT_SHARDS) if file < len(files) else 1
        if file == last and len(units[-1]) < size:
            units[-1].append(shard)
        else:
            units.append([shard])
        last = file
    return [ReadUnit(tuple(unit)) for unit in units]


def unit_size(file: InputFile, total: int, wanted: int) -> int:
    """How much of a file one task should read: `wanted`, but more of one that every task must read from its start."""
    return max(wanted, -(-total // _PASSES)) if file.compressed else wanted


def _cut(file: int, runs: Runs, split: NDArray[np.bool_], shard_pairs: int, first_index: int) -> list[Shard]:
    """Cut one file's contiguous queries into shards of at most `shard_pairs`, never inside a query."""
    shards: list[Shard] = []
    edges = np.flatnonzero(np.append(True, split[1:] != split[:-1])[: len(runs)])
    for low, high in pairwise([*edges.tolist(), len(runs)]):
        if split[low]:
            continue
        starts = low + bins(runs.pairs[low:high], shard_pairs)
        for start, stop in pairwise([*starts.tolist(), high]):
            end = int(runs.start[stop - 1] + runs.rows[stop - 1])
            piece = Piece(file, int(runs.start[start]), end, int(runs.offset[start]))
            pairs = int(runs.pairs[start:stop].sum())
            shards.append(Shard(first_index + len(shards), stop - start, pairs, (piece,)))
    return shards


def _gather(
    runs: Sequence[Runs], split: NDArray[np.uint64], shard_pairs: int, first_index: int
) -> tuple[Scattered, list[Shard]]:
    """Share the scattered queries out over shards, in order of their hash."""
    query = np.concatenate([run.query for run in runs])
    inside = np.isin(query, split)
    number = np.searchsorted(split, query[inside])

    def of_runs(name: str) -> NDArray[np.int64]:
        found: NDArray[np.int64] = np.concatenate([getattr(run, name) for run in runs])[inside]
        return found

    start, pairs = of_runs("start"), of_runs("pairs")
    weights = np.zeros(len(split), dtype=np.int64)
    np.add.at(weights, number, pairs)
    firsts = bins(weights, shard_pairs)
    shard_of = np.searchsorted(firsts, np.arange(len(split)), side="right") - 1
    scattered = Scattered(
        file=np.repeat(np.arange(len(runs), dtype=np.int32), [len(run) for run in runs])[inside],
        query=query[inside],
        start=start,
        stop=start + of_runs("rows"),
        offset=of_runs("offset"),
        pairs=pairs,
        shard=(first_index + shard_of[number]).astype(np.int32),
    )
    totals = np.bincount(shard_of, weights=weights, minlength=len(firsts)).astype(np.int64).tolist()
    queries = np.diff(np.append(firsts, len(split))).tolist()
    sizes = enumerate(zip(queries, totals, strict=True))
    return scattered, [Shard(first_index + shard, count, pairs, ()) for shard, (count, pairs) in sizes]


def bins(weights: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """First element of each bin; a bin is closed when the next weight would take it over the limit."""
    sums = np.cumsum(weights)
    starts: list[int] = []
    start = 0
    while start < len(weights):
        starts.append(start)
        before = sums[start - 1] if start else 0
        start = max(int(np.searchsorted(sums, before + limit, side="right")), start + 1)
    return np.array(starts, dtype=np.int64)
