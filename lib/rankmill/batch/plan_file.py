"""The plan as a file of the output: `_rankmill/plan.parquet`, one row per shard, written once, before the job record.

It says where the rows of each shard are: of one file from `start` to `stop`, or, with no `source`, in so many `places`
of the input: those of the queries that lie in several, of which the shard has the ones whose hash is from `first_query`
to `last_query`. Whoever finds a plan there compares it with its own; the job record keeps the digest of the rows, which
does not depend on who wrote the file with which release of which library.
"""

import hashlib
import io
from collections.abc import Iterator

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rankmill.batch.plan import Piece, Plan, Scattered, Shard
from rankmill.errors import OutputConflictError
from rankmill.storage.store import Store
from rankmill.tables.locate import InputFile
from rankmill.tables.schema import Layout

PLAN = "_rankmill/plan.parquet"

SCHEMA = pa.schema(
    [
        ("shard", pa.int32()),
        ("queries", pa.int64()),
        ("pairs", pa.int64()),
        ("source", pa.string()),  # URI of the input file, and what it was when the input was listed
        ("bytes", pa.int64()),
        ("version", pa.string()),
        ("start", pa.int64()),  # first row, and the one after the last
        ("stop", pa.int64()),
        ("offset", pa.int64()),  # byte where row `start` begins (JSONL), else 0
        ("places", pa.int64()),
        ("first_query", pa.uint64()),
        ("last_query", pa.uint64()),
    ]
)

_ROWS = 65_536
"""Per row group, and converted at a time: a plan may have a million shards."""


def to_parquet(plan: Plan) -> bytes:
    """The file. `plan` is as it was cut, before anything was gathered."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd", write_page_checksum=True) as out:
        for batch in _batches(plan):
            out.write_batch(batch, row_group_size=_ROWS)
    return sink.getvalue()


def read(body: bytes) -> Iterator[pa.RecordBatch]:
    """The rows of a plan file, some at a time.

    Raises:
        ValueError: the bytes are no plan, or were changed.
    """
    try:
        with pq.ParquetFile(pa.BufferReader(body), page_checksum_verification=True) as file:
            if file.schema_arrow.names != SCHEMA.names:
                raise ValueError(f"it has the columns {', '.join(file.schema_arrow.names)}")
            for batch in file.iter_batches(_ROWS):
                yield batch.cast(SCHEMA)
    except (pa.ArrowException, OSError) as error:
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0][:300]) from error


def to_plan(body: bytes, files: tuple[InputFile, ...], layout: Layout) -> Plan | None:
    """The plan that a file says; None where rows have to be gathered, for it only counts their places.

    Args:
        body: the file, which is whole.
        files: the input that it was made of.
        layout: how to read that.
    """
    numbers = {file.uri: number for number, file in enumerate(files)}
    names = ("shard", "queries", "pairs", "source", "start", "stop", "offset")
    shards: list[Shard] = []
    for batch in read(body):
        if batch["source"].null_count:
            return None
        rows = zip(*(batch[name].to_pylist() for name in names), strict=True)
        shards += (
            Shard(index, queries, pairs, (Piece(numbers[uri], *place),)) for index, queries, pairs, uri, *place in rows
        )
    totals = (sum(shard.queries for shard in shards), sum(shard.pairs for shard in shards))
    return Plan(files, layout, tuple(shards), Scattered.none(), *totals)


def digest(body: bytes) -> str:
    """SHA-256 over the rows of a plan file, as lines of JSON; ValueError when it is none."""
    found = hashlib.sha256()
    for batch in read(body):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            found.update(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    return found.hexdigest()


def scattered_digest(runs: Scattered) -> str:
    """SHA-256 over the places that the file only counts."""
    found = hashlib.sha256()
    for column in (runs.file, runs.query, runs.start, runs.stop, runs.offset, runs.pairs, runs.shard):
        found.update(np.ascontiguousarray(column).data)
    return found.hexdigest()


def record(store: Store, body: bytes) -> None:
    """Write the plan of a job, or find the same one there.

    Raises:
        OutputConflictError: another plan is there, or something that is none.
        StorageError: the store refused or cannot be reached.
    """
    there = store.read_if_present(PLAN)
    if there is None:
        if store.create(PLAN, body):
            return
        there = store.read(PLAN)
    if there == body:
        return
    try:
        if digest(there) == digest(body):  # of another release of the library that writes Parquet
            return
        found = f"cuts the input otherwise ({_rows(there):,} shards there, {_rows(body):,} here)"
    except ValueError as error:
        found = f"cannot be read ({error})"
    raise OutputConflictError(
        f"{store.join(PLAN)} is not the plan of this job: it {found}. It was changed, or left by a run that had other "
        "settings and was killed before its job began. Delete it, or give another --output."
    )


def _rows(body: bytes) -> int:
    return sum(batch.num_rows for batch in read(body))


def _batches(plan: Plan) -> Iterator[pa.RecordBatch]:
    places, first, last = _gathered(plan)
    for low in range(0, len(plan.shards), _ROWS):
        yield _batch(plan, plan.shards[low : low + _ROWS], places, first, last)


def _batch(
    plan: Plan,
    shards: tuple[Shard, ...],
    places: NDArray[np.int64],
    first: NDArray[np.uint64],
    last: NDArray[np.uint64],
) -> pa.RecordBatch:
    numbers = np.array([shard.index for shard in shards])
    pieces = [shard.pieces[0] if shard.pieces else None for shard in shards]
    files = [None if piece is None else plan.files[piece.file] for piece in pieces]
    near = np.array([piece is not None for piece in pieces])
    columns = [
        pa.array(numbers, pa.int32()),
        pa.array([shard.queries for shard in shards], pa.int64()),
        pa.array([shard.pairs for shard in shards], pa.int64()),
        pa.array([None if file is None else file.uri for file in files], pa.string()),
        pa.array([None if file is None else file.size for file in files], pa.int64()),
        pa.array([None if file is None else file.version for file in files], pa.string()),
        *(
            pa.array([None if piece is None else getattr(piece, name) for piece in pieces], pa.int64())
            for name in ("start", "stop", "offset")
        ),
        pa.array(np.where(near, 1, places[numbers])),
        pa.array(first[numbers], mask=near),
        pa.array(last[numbers], mask=near),
    ]
    return pa.record_batch(columns, schema=SCHEMA)


def _gathered(plan: Plan) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint64]]:
    """Of each shard, how many places its scattered queries have, their least hash and their largest."""
    count, runs = len(plan.shards), plan.scattered
    first = np.full(count, np.iinfo(np.uint64).max, dtype=np.uint64)
    last = np.zeros(count, dtype=np.uint64)
    np.minimum.at(first, runs.shard, runs.query)
    np.maximum.at(last, runs.shard, runs.query)
    return np.bincount(runs.shard, minlength=count).astype(np.int64), first, last
