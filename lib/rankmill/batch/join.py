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
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rankmill.batch.executor import Executor
from rankmill.batch.group import Chunk, Gathered, Keyed, chunks, complete, in_bulk, rows_of, write_sorted
from rankmill.batch.join_tables import Texts, TextTable, as_key
from rankmill.batch.plan import Plan, bins
from rankmill.batch.read import Source
from rankmill.storage.store import Store
from rankmill.tables import parquet
from rankmill.tables.canonical import mark
from rankmill.tables.locate import InputFile
from rankmill.tables.runs import hash_ids

FOLDER = "_rankmill/joined"
_FORMAT = 1  # of the files here; those of another are not taken for ours
_BYTES = 64 << 20  # of text that a task holds, a few times over
_ROW_BYTES = 100  # of a pair besides its text
_MAX_PARTITIONS = 4096


@dataclass(frozen=True, slots=True)
class Slice:
    """Consecutive rows of a file of ours."""

    file: InputFile
    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class Join:
    """What every task of a join needs to know."""

    store: Store
    source: Source
    texts: Texts
    folder: str
    partitions: int
    """Of documents."""
    first_shard: int
    first_hashes: NDArray[np.uint64]
    """Smallest hash of a query id of each shard, ascending."""


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
        return complete(plan, [_from_json(body, store) for body in known if body is not None])
    pairs = _by_key(executor.map(partial(split_pairs, join=made), chunks(plan)))
    documents = _by_key(executor.map(partial(split_documents, join=made), _ranges(texts.corpus)))
    queries = _by_key(executor.map(partial(split_queries, join=made), _ranges(texts.queries)))
    partitions = [Partition(n, tuple(slices), tuple(documents[n])) for n, slices in sorted(pairs.items())]
    found = _by_key(executor.map(partial(look_up, join=made), partitions))
    tasks = [Shards(number, _joined(found, shards), _joined(queries, shards)) for number, shards in groups]
    return complete(plan, executor.map(partial(assemble, join=made), tasks))


def split_pairs(chunk: Chunk, join: Join) -> list[Gathered]:
    """Split a chunk of the run by document."""

    def rows() -> Iterator[Keyed]:
        for table, shard in rows_of(chunk, join.source):
            key = as_key(table.column("doc_id"))
            ids = table.drop_columns(["query", "document"])
            ids = ids.append_column("key", key).append_column("shard", pa.array(shard))
            yield ids, _partition(key, join)

    return _once(_name(join, "pairs", chunk.index), join.store, rows)


def split_documents(task: TextRange, join: Join) -> list[Gathered]:
    """Split documents by id."""

    def rows() -> Iterator[Keyed]:
        for table in join.texts.corpus.read(task.file, task.start, task.stop):
            yield table, _partition(table.column("key"), join)

    return _once(_name(join, "documents", task.index), join.store, rows)


def split_queries(task: TextRange, join: Join) -> list[Gathered]:
    """Split queries by the shard that holds their pairs, if any does."""

    def rows() -> Iterator[Keyed]:
        for table in join.texts.queries.read(task.file, task.start, task.stop):
            hashes = hash_ids(table.column("key").combine_chunks())
            shard = np.searchsorted(join.first_hashes, hashes, side="right") - 1
            yield table, (join.first_shard + np.maximum(shard, 0)).astype(np.int32)

    return _once(_name(join, "queries", task.index), join.store, rows)


def look_up(task: Partition, join: Join) -> list[Gathered]:
    """Give the pairs of a partition their documents."""

    def rows() -> Iterator[Keyed]:
        pairs, documents = _read(task.pairs), _read(task.documents, _TEXTS)
        pairs = pairs.take(np.argsort(pairs.column("shard").to_numpy(), kind="stable"))  # few shards to a file
        places = pc.index_in(pairs.column("key").combine_chunks(), value_set=documents.column("key").combine_chunks())
        sizes = pc.fill_null(pc.binary_length(documents.column("text")).take(places), 0).to_numpy()
        starts = bins(sizes.astype(np.int64) + _ROW_BYTES, _BYTES)
        for start, stop in pairwise([*starts.tolist(), len(pairs)]):
            some = pairs.slice(start, stop - start).drop_columns("key")
            found = _with_texts(some, "document", places.slice(start, stop - start), documents)
            yield found, some.column("shard").to_numpy()

    return _once(_name(join, "found", task.index), join.store, rows)


def assemble(task: Shards, join: Join) -> list[Gathered]:
    """Give the pairs of some shards their queries, and put them in input order."""

    def rows() -> Iterator[Keyed]:
        pairs, queries = _read(task.pairs), _read(task.queries, _TEXTS)
        pairs = pairs.take(pc.sort_indices(pairs, [(name, "ascending") for name in ("shard", "source", "row")]))
        places = pc.index_in(
            as_key(pairs.column("query_id")).combine_chunks(), value_set=queries.column("key").combine_chunks()
        )
        schema = join.source.layout.canonical_schema()
        found = _with_texts(pairs, "query", places, queries)
        yield found.select(schema.names).cast(schema), pairs.column("shard").to_numpy()

    return _once(_name(join, "shards", task.index), join.store, rows)


_TEXTS = pa.schema(
    [("key", pa.large_string()), ("text", pa.large_string()), ("reason", pa.string()), ("detail", pa.string())]
)


def _with_texts(pairs: pa.Table, side: str, places: pa.Array, texts: pa.Table) -> pa.Table:
    """Add the text at each pair's place; why there is none, if the pair has no reason to be rejected already."""
    fresh = pairs.column("reason").is_null()
    pairs = pairs.append_column(side, texts.column("text").take(places))
    for name in ("reason", "detail"):
        merged = pc.if_else(fresh, texts.column(name).take(places), pairs.column(name))
        pairs = pairs.set_column(pairs.schema.get_field_index(name), name, merged)
    return mark(pairs, places.is_null(), f"unknown_{side}")


def _join_of(plan: Plan, source: Source, texts: Texts, store: Store) -> Join:
    """Decide what follows from the input alone: another run of the same job decides the same."""
    partitions = min(max(-(-texts.corpus.text_bytes // _BYTES), 1), _MAX_PARTITIONS)
    runs = plan.scattered
    first_shard = int(runs.shard.min())
    first_hashes = np.full(int(runs.shard.max()) - first_shard + 1, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(first_hashes, runs.shard - first_shard, runs.query)
    decided = [_FORMAT, partitions, _BYTES, len(chunks(plan)), plan.pairs, [shard.pairs for shard in plan.shards]]
    digest = hashlib.sha256(orjson.dumps(decided)).hexdigest()[:12]
    return Join(store, source, texts, f"{FOLDER}/{digest}", partitions, first_shard, first_hashes)


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


def _once(name: str, store: Store, rows: Callable[[], Iterable[Keyed]]) -> list[Gathered]:
    """Write rows in files sorted by key, and a record of them; or read the record."""
    known = store.read_if_present(f"{name}.json")
    if known is not None:
        return _from_json(known, store)
    pieces = enumerate(in_bulk(rows(), _BYTES))
    done = [write_sorted(table, keys, f"{name}-{number:06}", store) for number, (table, keys) in pieces]
    body = [[item.file.uri.rpartition("/")[2], item.file.size, item.ranges] for item in done]
    store.create(f"{name}.json", orjson.dumps([name.rpartition("/")[0], body]))
    return done


def _from_json(body: bytes, store: Store) -> list[Gathered]:
    folder, files = orjson.loads(body)
    return [
        Gathered(InputFile(store.join(f"{folder}/{name}"), size, "", store.storage), tuple(map(tuple, ranges)))
        for name, size, ranges in files
    ]


def _name(join: Join, what: str, number: int) -> str:
    return f"{join.folder}/{what}-{number:06}"


def _by_key(done: Iterable[Iterable[Gathered]]) -> dict[int, list[Slice]]:
    """Where the rows of each key are; in the same order whichever task came first."""
    found: dict[int, list[Slice]] = defaultdict(list)
    for item in sorted((item for task in done for item in task), key=lambda item: item.file.uri):
        for key, start, stop in item.ranges:
            found[key].append(Slice(item.file, start, stop))
    return found


def _joined(found: dict[int, list[Slice]], keys: Sequence[int]) -> tuple[Slice, ...]:
    """The slices of some keys; those that follow each other in a file are one."""
    merged: list[Slice] = []
    slices = sorted((item for key in keys for item in found.get(key, [])), key=lambda item: (item.file.uri, item.start))
    for item in slices:
        follows = bool(merged) and merged[-1].file == item.file and merged[-1].stop == item.start
        start = merged.pop().start if follows else item.start
        merged.append(Slice(item.file, start, item.stop))
    return tuple(merged)


def _read(slices: Sequence[Slice], schema: pa.Schema | None = None) -> pa.Table:
    """All rows of the slices; without a schema there must be some."""
    tables = [table for item in slices for table in parquet.read_table_rows(item.file, item.start, item.stop)]
    if schema is not None:
        tables.append(schema.empty_table())
    return pa.concat_tables(tables).combine_chunks()
