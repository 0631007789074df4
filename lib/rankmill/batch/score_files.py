"""What a job with `--keep-scores` leaves for later jobs: each pair that it scored, by the hash of its texts.

A file per shard, with one row per distinct pair, sorted by key: some 24 bytes a pair, because keys do not compress.
That and one more PUT per shard is cheap, but more than nothing, and of use only to those who will score again; and who
has the file can tell whether a text that he guesses was among those scored. Hence a flag, and not always.

A key is made of the texts as the scorer gets them, title or template included, and of no ids. Pairs are told apart by
128 bits over both texts; 64 bits over the query alone stand before them, so that the pairs of a query lie together and
can be found with few reads.
"""

import hashlib
import io

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rankmill.tables.schema import BEST_CHUNK

FOLDER = "_rankmill/scores"

KEYS = ("query_key", "pair_key")
RESULTS = ("length", "truncated", "logit", *BEST_CHUNK)
"""What a forward pass, and the tokenizer before it, find out about a pair."""

SCHEMA = pa.schema(
    [
        ("query_key", pa.uint64()),
        ("pair_key", pa.binary(16)),
        ("length", pa.int32()),
        ("truncated", pa.bool_()),
        ("logit", pa.float32()),
        *((name, pa.int32()) for name in BEST_CHUNK),
    ]
)


def with_keys(table: pa.Table) -> pa.Table:
    """A canonical table with `query_key` and `pair_key`; null in rows that cannot be scored."""
    queries, documents = (table.column(name).cast(pa.large_binary()).to_pylist() for name in ("query", "document"))
    scorable = table.column("reason").is_null().to_pylist()
    query_keys: list[int | None] = []
    pair_keys: list[bytes | None] = []
    last = None
    of_query = hashlib.blake2b(digest_size=16)
    query_key = 0
    for query, document, good in zip(queries, documents, scorable, strict=True):
        if not good:
            query_keys.append(None)
            pair_keys.append(None)
            continue
        if query != last:
            last = query
            query_key = int.from_bytes(hashlib.blake2b(query, digest_size=8).digest(), "big")
            of_query = hashlib.blake2b(len(query).to_bytes(8, "big") + query, digest_size=16)
        of_pair = of_query.copy()
        of_pair.update(document)
        query_keys.append(query_key)
        pair_keys.append(of_pair.digest())
    table = table.append_column("query_key", pa.array(query_keys, pa.uint64()))
    return table.append_column("pair_key", pa.array(pair_keys, pa.binary(16)))


def distinct(table: pa.Table) -> pa.Table:
    """Rows of `SCHEMA` sorted by key; of several with one key the first."""
    table = table.sort_by([(name, "ascending") for name in KEYS])
    keys = table.column("pair_key").combine_chunks()
    if len(keys) < 2:
        return table
    new = pc.not_equal(keys.slice(1), keys.slice(0, len(keys) - 1))
    return table.filter(pa.concat_arrays([pa.array([True]), new]))


def scores_of(pairs: pa.Table) -> pa.Table:
    """The distinct pairs of a scored shard, as rows of `SCHEMA`."""
    for name in BEST_CHUNK:
        if name not in pairs.column_names:
            pairs = pairs.append_column(name, pa.nulls(len(pairs), pa.int32()))
    return distinct(pairs.select(SCHEMA.names).cast(SCHEMA))


def from_bytes(body: bytes) -> pa.Table:
    """What `to_bytes` was given, as rows of `SCHEMA`.

    Raises:
        OSError, pyarrow.ArrowException: the bytes are damaged, as far as that shows.
    """
    return pq.read_table(pa.BufferReader(body), page_checksum_verification=True).cast(SCHEMA)


def to_bytes(table: pa.Table, row_group_size: int | None = None) -> bytes:
    """Parquet with page checksums; the same table always gives the same bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size, compression="zstd", write_page_checksum=True)
    return sink.getvalue()
