"""From a scored shard to the bytes of its part and rejected files. Same shard and logits in, same bytes out."""

import hashlib
import io
from dataclasses import dataclass

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from rankmill import __version__
from rankmill.batch.freight import ScoredShard
from rankmill.batch.receipts import Counts
from rankmill.ranking.rank import Order, codes, rank_pairs, retrieval_ranks
from rankmill.scoring.activation import activate
from rankmill.tables.schema import BEST_CHUNK, KEEP, Layout

REJECTED_COLUMNS = ("source", "row", "query_id", "doc_id", "reason", "detail")
COUNTS = b"rankmill.counts"
"""Key of the counts in a part's metadata."""
SCORER = b"rankmill.scorer"
"""Key of the scorer's fingerprint in a part's metadata."""
SHA256 = "rankmillsha256"
"""Name of a part's hash in the metadata of its object."""


@dataclass(frozen=True, slots=True)
class PartOptions:
    """Everything that decides what a part looks like, apart from its shard."""

    layout: Layout
    files: tuple[str, ...]
    """URIs of the input files, by index."""
    top_k: int | None
    nested: bool
    activation: str
    model: str
    revision: str
    fingerprint: str
    """Of the scorer."""


def rankings(shard: ScoredShard, options: PartOptions) -> pa.Table:
    """Rank a shard's pairs and bring them into output form (design: `pairs` or `nested`)."""
    pairs = shard.pairs
    query_codes = codes(pairs.column("query_id").combine_chunks())
    logits = pairs.column("logit").to_numpy()
    first_stage = None
    scores = pa.nulls(len(pairs), pa.float64())
    if options.layout.retrieval_score:
        scores = pairs.column("retrieval_score").combine_chunks()
        first_stage = retrieval_ranks(query_codes, scores.to_numpy(zero_copy_only=False))
    order = rank_pairs(query_codes, logits, first_stage, options.top_k)
    no_ranks = pa.nulls(len(pairs), pa.int32())
    table = pa.table(
        {
            "query_id": pairs.column("query_id"),
            "doc_id": pairs.column("doc_id"),
            "score": activate(logits, options.activation),
            "logit": logits,
            "retrieval_score": scores,
            "retrieval_rank": no_ranks if first_stage is None else _null_where(first_stage, scores),
            "truncated": pairs.column("truncated"),
            **{name: pairs.column(name) for name in BEST_CHUNK if name in pairs.column_names},
            **{kept.name: pairs.column(KEEP + kept.name) for kept in options.layout.keep},
        }
    ).take(order.rows)
    table = table.add_column(2, "rank", pa.array(order.rank, pa.int32()))
    return _nest(table, order, options.layout) if options.nested else table


def schema_of(options: PartOptions, *, chunked: bool) -> pa.Schema:
    """Columns of every part, before there is one.

    Args:
        options: of the parts.
        chunked: whether documents are scored in chunks, of which the best is told.
    """
    pairs = options.layout.canonical_schema().empty_table()
    results = [
        ("truncated", pa.bool_()),
        *((name, pa.int32()) for name in BEST_CHUNK if chunked),
        ("logit", pa.float32()),
    ]
    for name, kind in results:
        pairs = pairs.append_column(name, pa.array([], kind))
    return rankings(ScoredShard(0, pairs, pairs, 0.0), options).schema


def rejected_rows(shard: ScoredShard, options: PartOptions) -> pa.Table:
    """The rows of a shard that could not be scored, with the file they came from and why."""
    names = pa.array(options.files, pa.string())
    rejected = shard.rejected.select(list(REJECTED_COLUMNS))
    return rejected.set_column(0, "source", names.take(rejected.column("source").combine_chunks()))


def to_parquet(table: pa.Table, options: PartOptions, counts: Counts | None = None) -> bytes:
    """Serialise with page checksums, so that any reader that verifies them finds a flipped byte."""
    metadata = {
        b"rankmill.model": options.model.encode(),
        b"rankmill.revision": options.revision.encode(),
        SCORER: options.fingerprint.encode(),
        b"rankmill.version": __version__.encode(),
    }
    if counts is not None:
        metadata[COUNTS] = counts.to_json()
    sink = io.BytesIO()
    table = table.replace_schema_metadata(metadata)
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def object_metadata(body: bytes, counts: Counts) -> dict[str, str]:
    """What an object store keeps beside a part, so that a HEAD tells its hash and counts; disks keep none.

    Names have letters and digits only, for Azure takes nothing else.
    """
    return {
        SHA256: hashlib.sha256(body).hexdigest(),
        "rankmillshard": str(counts.shard),
        "rankmillqueries": str(counts.queries),
        "rankmillrows": str(counts.rows_out),
        "rankmillrejected": str(counts.rejected),
    }


def counts_in(metadata: dict[bytes, bytes] | None) -> Counts:
    """What a part says of itself; ValueError when it says nothing.

    Args:
        metadata: the key-value pairs of its footer.
    """
    try:
        return Counts(**orjson.loads((metadata or {})[COUNTS]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"no {COUNTS.decode()} in its footer") from error


def footer_of(end: bytes) -> bytes | None:
    """The footer of a Parquet file, its length and the closing magic included; None when `end` is too short for it.

    Args:
        end: the last bytes of the file, or all of them.
    """
    size = int.from_bytes(end[-8:-4], "little") + 8
    return end[-size:] if len(end) >= size else None


def _null_where(ranks: np.ndarray[tuple[int], np.dtype[np.int64]], scores: pa.Array) -> pa.Array:
    """Retrieval ranks, null for candidates without a retrieval score."""
    return pa.array(ranks, pa.int32(), mask=scores.is_null().to_numpy(zero_copy_only=False))


def _nest(table: pa.Table, order: Order, layout: Layout) -> pa.Table:
    """One row per query; kept columns of the query stay beside it, everything else goes into `candidates`."""
    starts = np.flatnonzero(order.rank == 1)
    offsets = np.append(starts, len(table)).astype(np.int32)
    per_query = ["query_id", *(kept.name for kept in layout.keep if layout.nested and not kept.per_candidate)]
    inner = [name for name in table.column_names if name not in per_query]
    structs = pa.StructArray.from_arrays([table.column(name).combine_chunks() for name in inner], names=inner)
    queries = table.select(per_query).take(starts)
    return queries.append_column("candidates", pa.ListArray.from_arrays(pa.array(offsets), structs))
