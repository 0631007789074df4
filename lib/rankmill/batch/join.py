"""Joins a run with its queries and its corpus, by way of files in the output, into the rows of the plan's shards.

    pairs of the run  ──by document──┐
    documents         ──by document──┴─ look up ──by shard──┐
    queries           ──by shard────────────────────────────┴─ assemble ── one row group per shard

Pairs and documents are first split by a hash of the document id into partitions whose texts fit into memory; a task per
partition then reads each text once and writes it to each pair that asks for it. A shard holds a range of query hashes,
so that queries need no partitions of their own. Every task writes files of a bounded size and, last, a record of them:
a task that has its record is not run again, whoever began it.
"""

import hashlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rankmill.batch.executor import Executor
from rankmill.batch.group import Chunk, Gathered, Keyed, chunks, complete, rows_of
from rankmill.batch.join_files import Slice, by_key, from_json, joined, once, read_slices
from rankmill.batch.join_tables import TEXTS, Side, Texts, TextTable, as_key
from rankmill.batch.plan import Plan, bins
from rankmill.batch.read import Source
from rankmill.storage.store import Store
from rankmill.tables.canonical import REASONS, mark
from rankmill.tables.locate import InputFile
from rankmill.tables.runs import hash_ids
from rankmill.tables.schema import KEEP

_log = logging.getLogger("rankmill")

FOLDER = "_rankmill/joined"
_FORMAT = 1  # of the files here; those of another are not taken for ours
_BYTES = 64 << 20  # of text that a task holds, a few times over
_ROW_BYTES = 100  # of a pair besides its text
_MAX_PARTITIONS = 4096
_UNREADABLE = -1
"""The partition of rows that stand for texts that cannot be read."""


@dataclass(frozen=True, slots=True, eq=False)
class Join:
    """What every task of a join needs to know."""

    store: Store
    source: Source
    """The run, read without the columns that are kept of the corpus."""
    schema: pa.Schema
    """Of what is joined: canonical."""
    texts: Texts
    folder: str
    partitions: int
    """Of documents."""
    first_shard: int
    first_hashes: NDArray[np.uint64]
    """Smallest hash of a query id of each shard, ascending."""
    unreadable: dict[Side, str] = field(default_factory=dict)
    """What of a table cannot be read, in words for those who miss a text; only known once it was split."""


@dataclass(frozen=True, slots=True)
class TextRange:
    """Rows of a file of texts, for one task to split."""

    index: int
    file: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Partition:
    """Pairs of the run, and all documents that they can ask for."""

    index: int
    pairs: tuple[Slice, ...]
    documents: tuple[Slice, ...]


@dataclass(frozen=True, slots=True)
class Shards:
    """Consecutive shards that one task assembles."""

    index: int
    pairs: tuple[Slice, ...]
    queries: tuple[Slice, ...]


def join(
    plan: Plan, source: Source, texts: Texts, store: Store, executor: Executor, left: set[int]
) -> tuple[Plan, tuple[InputFile, ...]]:
    """Join what the shards that are left hold.

    Args:
        plan: of the run, all of it scattered.
        source: the run.
        texts: what it is joined with.
        store: the output.
        executor: runs the tasks.
        left: shards that are still to do.

    Returns:
        The plan with the places of the joined rows of those shards, and the files that they are in.

    Raises:
        InputError: a file is damaged or was replaced.
        StorageError: a store refused or cannot be reached.
    """
    made = _join_of(plan, source, texts, store)
    groups = [group for group in _groups(plan, texts.corpus.mean_bytes) if left.intersection(group[1])]
    known = [store.read_if_present(f"{_name(made, 'shards', number)}.json") for number, _ in groups]
    if all(body is not None for body in known):
        return complete(plan, [from_json(body, store) for body in known if body is not None])
    pairs = by_key(executor.map(partial(split_pairs, join=made), chunks(plan)))
    documents = by_key(executor.map(partial(split_documents, join=made), _ranges(texts.corpus)))
    queries = by_key(executor.map(partial(split_queries, join=made), _ranges(texts.queries)))
    made = replace(made, unreadable=_said_of("query", queries) | _said_of("document", documents))
    partitions = [Partition(n, tuple(slices), tuple(documents[n])) for n, slices in sorted(pairs.items())]
    found = by_key(executor.map(partial(look_up, join=made), partitions))
    tasks = [Shards(number, joined(found, shards), joined(queries, shards)) for number, shards in groups]
    return complete(plan, executor.map(partial(assemble, join=made), tasks))


def split_pairs(chunk: Chunk, join: Join) -> list[Gathered]:
    """Split a chunk of the run by document."""

    def rows() -> Iterator[Keyed]:
        for table, shard in rows_of(chunk, join.source):
            key = as_key(table.column("doc_id"))
            ids = table.drop_columns(["query", "document"])
            ids = ids.append_column("key", key).append_column("shard", pa.array(shard))
            yield ids, _partition(key, join)

    return once(_name(join, "pairs", chunk.index), join.store, _BYTES, rows)


def split_documents(task: TextRange, join: Join) -> list[Gathered]:
    """Split documents by id."""

    def rows() -> Iterator[Keyed]:
        for table in join.texts.corpus.read(task.file, task.start, task.stop):
            yield table, _or_unreadable(_partition(table.column("key"), join), table)

    return once(_name(join, "documents", task.index), join.store, _BYTES, rows)


def split_queries(task: TextRange, join: Join) -> list[Gathered]:
    """Split queries by the shard that holds their pairs, if any does."""

    def rows() -> Iterator[Keyed]:
        for table in join.texts.queries.read(task.file, task.start, task.stop):
            hashes = hash_ids(table.column("key").combine_chunks())
            shard = np.searchsorted(join.first_hashes, hashes, side="right") - 1
            yield table, _or_unreadable((join.first_shard + np.maximum(shard, 0)).astype(np.int32), table)

    return once(_name(join, "queries", task.index), join.store, _BYTES, rows)


def look_up(task: Partition, join: Join) -> list[Gathered]:
    """Give the pairs of a partition their documents."""

    def rows() -> Iterator[Keyed]:
        pairs, documents = read_slices(task.pairs), read_slices(task.documents, join.texts.corpus.schema)
        pairs = pairs.take(np.argsort(pairs.column("shard").to_numpy(), kind="stable"))  # few shards to a file
        places = pc.index_in(pairs.column("key").combine_chunks(), value_set=documents.column("key").combine_chunks())
        sizes = pc.fill_null(pc.binary_length(documents.column("text")).take(places), 0).to_numpy()
        kept = documents.select([KEEP + kept.name for kept in join.texts.corpus.keep]).nbytes // max(len(documents), 1)
        starts = bins(sizes.astype(np.int64) + _ROW_BYTES + kept, _BYTES)
        for start, stop in pairwise([*starts.tolist(), len(pairs)]):
            some = pairs.slice(start, stop - start).drop_columns("key")
            found = _with_texts(some, "document", places.slice(start, stop - start), documents, join)
            yield found, some.column("shard").to_numpy()

    return once(_name(join, "found", task.index), join.store, _BYTES, rows)


def assemble(task: Shards, join: Join) -> list[Gathered]:
    """Give the pairs of some shards their queries, and put them in input order."""

    def rows() -> Iterator[Keyed]:
        pairs, queries = read_slices(task.pairs), read_slices(task.queries, TEXTS)
        pairs = pairs.take(pc.sort_indices(pairs, [(name, "ascending") for name in ("shard", "source", "row")]))
        places = pc.index_in(
            as_key(pairs.column("query_id")).combine_chunks(), value_set=queries.column("key").combine_chunks()
        )
        found = _with_texts(pairs, "query", places, queries, join)
        yield found.select(join.schema.names).cast(join.schema), pairs.column("shard").to_numpy()

    return once(_name(join, "shards", task.index), join.store, _BYTES, rows)


def _with_texts(pairs: pa.Table, side: Side, places: pa.Array, texts: pa.Table, join: Join) -> pa.Table:
    """Add the text at each pair's place; why there is none, if the pair has no reason to be rejected already."""
    fresh = pairs.column("reason").is_null()
    pairs = pairs.append_column(side, texts.column("text").take(places))
    for name in texts.column_names:
        if name.startswith(KEEP):
            pairs = pairs.append_column(name, texts.column(name).take(places))
    for name in ("reason", "detail"):
        merged = pc.if_else(fresh, texts.column(name).take(places), pairs.column(name))
        pairs = pairs.set_column(pairs.schema.get_field_index(name), name, merged)
    return mark(pairs, places.is_null(), f"unknown_{side}", join.unreadable.get(side))


def _join_of(plan: Plan, source: Source, texts: Texts, store: Store) -> Join:
    """Decide what follows from the input alone: another run of the same job decides the same."""
    partitions = min(max(-(-texts.corpus.text_bytes // _BYTES), 1), _MAX_PARTITIONS)
    runs = plan.scattered
    first_shard = int(runs.shard.min())
    first_hashes = np.full(int(runs.shard.max()) - first_shard + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(first_hashes, runs.shard - first_shard, runs.query)
    decided = [_FORMAT, partitions, _BYTES, len(chunks(plan)), plan.pairs, [shard.pairs for shard in plan.shards]]
    digest = hashlib.sha256(orjson.dumps(decided)).hexdigest()[:12]
    layout = source.layout
    of_run = replace(layout, keep=tuple(kept for kept in layout.keep if kept not in texts.corpus.keep))
    return Join(
        store=store,
        source=replace(source, layout=of_run),
        schema=layout.canonical_schema(),
        texts=texts,
        folder=f"{FOLDER}/{digest}",
        partitions=partitions,
        first_shard=first_shard,
        first_hashes=first_hashes,
    )


def _groups(plan: Plan, mean_bytes: float) -> list[tuple[int, list[int]]]:
    """Consecutive shards, numbered groups of them, each of a bounded size."""
    weights = np.array([shard.pairs for shard in plan.shards], dtype=np.int64)
    starts = bins(weights, max(int(_BYTES / (mean_bytes + _ROW_BYTES)), 1))
    edges = pairwise([*starts.tolist(), len(plan.shards)])
    return [(n, [shard.index for shard in plan.shards[a:b]]) for n, (a, b) in enumerate(edges)]


def _ranges(table: TextTable) -> list[TextRange]:
    """Share a table out over tasks. A file of lines is one task: where its lines begin only reading tells."""
    found: list[TextRange] = []
    for number, item in enumerate(table.files):
        step = max(int(_BYTES / max(item.mean_bytes, 1)), 1)
        starts = range(0, item.rows, step) if item.rows else [0]
        found += [
            TextRange(len(found) + n, number, start, start + step if item.rows else sys.maxsize)
            for n, start in enumerate(starts)
        ]
    return found


def _partition(keys: pa.ChunkedArray, join: Join) -> NDArray[np.int32]:
    """The partition of each id; a null one is in the first."""
    hashes = hash_ids(keys.combine_chunks())
    return (hashes % np.uint64(join.partitions)).astype(np.int32)


def _or_unreadable(numbers: NDArray[np.int32], texts: pa.Table) -> NDArray[np.int32]:
    """The numbers of texts; of rows that stand for texts that cannot be read, `_UNREADABLE`."""
    none = texts.column("key").is_null().to_numpy()
    return np.where(none, np.int32(_UNREADABLE), numbers)


def _said_of(side: Side, found: dict[int, list[Slice]]) -> dict[Side, str]:
    """A sentence on what of a table cannot be read, by its side; none where all can."""
    if _UNREADABLE not in found:
        return {}
    details = [*dict.fromkeys(read_slices(found[_UNREADABLE]).column("detail").to_pylist())]
    more = f" (and {len(details) - 1:,} more)" if details[1:] else ""
    sentence = f"{REASONS[f'unknown_{side}']} in what can be read of it: {details[0]}{more}"
    _log.warning("pairs can be rejected for this: %s", sentence)
    return {side: sentence}


def _name(join: Join, what: str, number: int) -> str:
    return f"{join.folder}/{what}-{number:06}"
