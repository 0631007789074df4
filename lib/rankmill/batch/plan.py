"""The plan: which rows make which shard. Pure functions over runs; nothing here reads a file or knows Ray.

A shard holds whole queries. Queries whose rows lie together are cut where they lie, so that a shard is a range of rows
of one file and costs no shuffle. Queries in several places (several files, or not contiguous) are scattered: their
rows are first gathered into files of our own, sorted by shard (`rankmill.batch.group`), and then read like the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    pairs: int
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Scattered:
    """A run of rows whose query also has rows elsewhere, and the shard that will hold them."""

    piece: Piece
    shard: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that decides what the output holds, apart from the model."""

    files: tuple[InputFile, ...]
    layout: Layout
    shards: tuple[Shard, ...]
    scattered: tuple[Scattered, ...]
    """Runs to gather before the shards that hold them (those without pieces) can be read; in input order."""
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


def make_plan(files: Sequence[InputFile], layout: Layout, runs: Sequence[Runs], shard_pairs: int) -> Plan:
    """Cut the input into shards.

    Args:
        files: the input files.
        layout: how to read them.
        runs: where each query's rows lie, one per file.
        shard_pairs: pairs per shard, aimed at: a query is never cut, so a shard may hold more.
    """
    everything = np.concatenate([run.query for run in runs]) if runs else np.zeros(0, dtype=np.uint64)
    unique, counts = np.unique(everything, return_counts=True)
    split = unique[counts > 1]
    shards: list[Shard] = []
    for index, run in enumerate(runs):
        here = ~np.isin(run.query, split)
        shards += _cut(index, run, here, shard_pairs, len(shards))
    scattered: tuple[Scattered, ...] = ()
    if len(split):
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
    return replace(plan, shards=shards, scattered=())


def read_units(shards: Sequence[Shard], own: int) -> list[ReadUnit]:
    """Group consecutive shards of one input file into units that one task reads in one pass.

    Args:
        shards: what is left to do, in order.
        own: index of the first gathered file; gathered shards are units of their own.
    """
    units: list[list[Shard]] = []
    for shard in shards:
        file = shard.pieces[0].file
        if units and len(units[-1]) < _UNIT_SHARDS and units[-1][0].pieces[0].file == file < own:
            units[-1].append(shard)
        else:
            units.append([shard])
    return [ReadUnit(tuple(unit)) for unit in units]


def _cut(file: int, runs: Runs, here: NDArray[np.bool_], shard_pairs: int, first_index: int) -> list[Shard]:
    """Cut one file's contiguous queries into shards of at most `shard_pairs`, never inside a query."""
    shards: list[Shard] = []
    start = 0
    while start < len(runs):
        if not here[start]:
            start += 1
            continue
        stop, pairs = start, 0
        while stop < len(runs) and here[stop] and (stop == start or pairs + runs.pairs[stop] <= shard_pairs):
            pairs += int(runs.pairs[stop])
            stop += 1
        end = int(runs.start[stop - 1] + runs.rows[stop - 1])
        piece = Piece(file, int(runs.start[start]), end, int(runs.offset[start]))
        shards.append(Shard(first_index + len(shards), pairs, (piece,)))
        start = stop
    return shards


def _gather(
    runs: Sequence[Runs], split: NDArray[np.uint64], shard_pairs: int, first_index: int
) -> tuple[tuple[Scattered, ...], list[Shard]]:
    """Share the scattered queries out over shards, in order of their hash."""
    weights = np.zeros(len(split), dtype=np.int64)
    for run in runs:
        inside = np.isin(run.query, split)
        np.add.at(weights, np.searchsorted(split, run.query[inside]), run.pairs[inside])
    shard_of = _fill(weights, shard_pairs)
    totals = np.bincount(shard_of, weights=weights).astype(np.int64)
    places = []
    for file, run in enumerate(runs):
        for position in np.flatnonzero(np.isin(run.query, split)):
            start = int(run.start[position])
            piece = Piece(file, start, start + int(run.rows[position]), int(run.offset[position]))
            places.append(Scattered(piece, first_index + int(shard_of[np.searchsorted(split, run.query[position])])))
    return tuple(places), [Shard(first_index + number, int(total), ()) for number, total in enumerate(totals)]


def _fill(weights: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Bin of each weight, in order: a bin is closed when the next weight would take it over the limit."""
    bins = np.zeros(len(weights), dtype=np.int64)
    current, load = 0, 0
    for index, weight in enumerate(weights.tolist()):
        if load and load + weight > limit:
            current, load = current + 1, 0
        bins[index] = current
        load += weight
    return bins
