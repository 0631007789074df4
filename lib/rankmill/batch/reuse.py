"""`--reuse`: the scores of an earlier job, made ready to be looked up by any shard of this one.

What the earlier job kept lies in a file per shard, and a pair of this job may be in any of them. So they are sorted
once, into the new output's `_rankmill/reuse/`: first a bounded number of files at a time, cut into buckets by the
leading bits of the query's key, then bucket by bucket. A shard then reads, for each of its queries, the few thousand
rows around it. No process ever holds more than a bucket, about two million pairs; more only where one query's text has
more documents than that. The same scores always give the same files, and the catalogue that is written last spares a
continued job the work.

A pair that is looked up gets the very bits that the earlier job wrote. A full run could find others in the last places,
as two runs do that batch their pairs differently or run on different devices; what is the same for both is the scorer's
fingerprint. Which job was reused is therefore no part of what a job is.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rankmill.batch import manifest, output, recorded
from rankmill.batch.executor import Executor
from rankmill.batch.group import Gathered, write_sorted
from rankmill.batch.plan import bins
from rankmill.batch.score_files import SCHEMA, distinct, from_bytes, to_bytes
from rankmill.errors import StorageError, UsageError
from rankmill.settings.storage import StorageSettings
from rankmill.storage.store import Store, sha256
from rankmill.tables.complete import open_parquet, read_groups
from rankmill.tables.errors import storage_errors
from rankmill.tables.locate import InputFile, open_file
from rankmill.tables.parquet import read_table_rows

FOLDER = "_rankmill/reuse"
BUCKET_PAIRS = 2_000_000
_ROW_GROUP = 4096  # read at least, for one query: about 100 kB
_READERS = 8  # buckets at a time; the wait is latency


@dataclass(frozen=True, slots=True)
class Earlier:
    """A finished job that kept its scores."""

    store: Store
    identity: str
    """Hash of its manifest."""
    files: tuple[manifest.ManifestFile, ...]
    """Its files of scores, in the order of its shards."""


@dataclass(frozen=True, slots=True)
class Index:
    """Scores of an earlier job, sorted; goes to every worker."""

    buckets: tuple[InputFile | None, ...]
    """By the leading bits of the query's key; None for an empty one. As many as a power of two."""

    def __call__(self, wanted: pa.Table) -> pa.Table:
        """What is known of some pairs.

        Args:
            wanted: columns `query_key` and `pair_key`, without nulls.

        Returns:
            Rows of `score_files.SCHEMA`, each key once, in no particular order.
        """
        queries = np.unique(wanted.column("query_key").to_numpy())
        pairs = wanted.column("pair_key").combine_chunks()
        owners = _bucket(queries, len(self.buckets))
        jobs = [(file, queries[owners == at]) for at, file in enumerate(self.buckets) if file is not None]
        with ThreadPoolExecutor(_READERS) as pool:
            tables = pool.map(lambda job: _known(job[0], job[1], pairs), [job for job in jobs if len(job[1])])
        return pa.concat_tables([SCHEMA.empty_table(), *tables])


def open_earlier(uri: str, storage: StorageSettings, into: Store, scorer: str) -> Earlier:
    """Look at the job whose scores are to be reused.

    Args:
        uri: its output.
        storage: where that is.
        into: the output of the new job.
        scorer: fingerprint of the new job's scorer.

    Raises:
        UsageError: the job is not finished, had another scorer, or kept no scores.
        InputError: there is no job.
        StorageError: the store refused or cannot be reached, or the manifest is not the one that was written.
    """
    store = recorded.open_output(uri, storage)
    if store.uri == into.uri:
        raise UsageError(f"--reuse {uri} is --output itself. Name the output of an earlier job.")
    job = recorded.job_of(store)
    marker = store.read_if_present(output.SUCCESS)
    if marker is None:
        raise UsageError(f"--reuse {uri}: that job is not finished. Run its own command again first, it continues.")
    if job["scorer"] != scorer:
        raise UsageError(
            f"--reuse {uri}: its scores come from another scorer ({job['command'].get('model')}, fingerprint "
            f"{job['scorer'][:12]}; here {scorer[:12]}): other weights, tokenizer, precision or truncation. Leave "
            "--reuse out, or give the settings of that job."
        )
    if not job["settings"].get("keep_scores"):
        raise UsageError(
            f"--reuse {uri}: that job kept no scores. Leave --reuse out, and give --keep-scores so that the next job "
            "can reuse this one's."
        )
    body = store.read(manifest.MANIFEST)
    if sha256(body) != _marked(marker):
        raise StorageError(f"{store.join(manifest.MANIFEST)} was changed after the job ended: `rankmill verify {uri}`.")
    files = tuple(manifest.ManifestFile(**file) for file in orjson.loads(body)["scores"])
    return Earlier(store, sha256(body), files)


def index(earlier: Earlier, store: Store, executor: Executor) -> Index:
    """Sort an earlier job's scores, or find them sorted.

    Args:
        earlier: whose scores.
        store: the new job's output.
        executor: sorts.

    Raises:
        StorageError: a file of scores is not what was written, or the store refused or cannot be reached.
    """
    folder = f"{FOLDER}/{earlier.identity[:16]}"
    catalogue = f"{folder}/index.json"
    body = store.read_if_present(catalogue)
    if body is None:
        pairs = np.array([file.pairs for file in earlier.files], dtype=np.int64)
        count = 1 << max(0, int(np.ceil(np.log2(max(int(pairs.sum()), 1) / BUCKET_PAIRS))))
        edges = [*bins(pairs, BUCKET_PAIRS).tolist(), len(pairs)]
        groups = [(number, earlier.files[a:b]) for number, (a, b) in enumerate(pairwise(edges))]
        runs = executor.map(partial(_sort, earlier=earlier.store, into=store, folder=folder, count=count), groups)
        ordered = sorted((run for run in runs if run is not None), key=lambda run: run.file.uri)
        slices = [_slices(ordered, number) for number in range(count)]
        wanted = [(number, places) for number, places in enumerate(slices) if places]
        done = dict(executor.map(partial(_merge, into=store, folder=folder), wanted))
        body = orjson.dumps([done.get(number) for number in range(count)])
        store.create(catalogue, body)
    places: list[tuple[str, int] | None] = orjson.loads(body)
    return Index(tuple(None if at is None else InputFile(store.join(at[0]), at[1], "", store.storage) for at in places))


_Slice = tuple[InputFile, int, int]
"""A file, the first row, and the row after the last."""


def _sort(
    group: tuple[int, Sequence[manifest.ManifestFile]], earlier: Store, into: Store, folder: str, count: int
) -> Gathered | None:
    """Write the rows of some files of scores sorted by bucket; None when there are none."""
    number, files = group
    table = pa.concat_tables([SCHEMA.empty_table(), *(_scores(file, earlier) for file in files)])
    if not len(table):
        return None
    buckets = _bucket(table.column("query_key").to_numpy(), count).astype(np.int32)
    return write_sorted(table, buckets, f"{folder}/run-{number:06}", into)


def _scores(file: manifest.ManifestFile, earlier: Store) -> pa.Table:
    body = earlier.read_if_present(file.key)
    if body is None or sha256(body) != file.sha256:
        trouble = "is gone" if body is None else "is not what its job wrote"
        raise StorageError(
            f"{earlier.join(file.key)} {trouble}: no score of that job is trusted. Leave --reuse out, and everything "
            f"is scored; `rankmill verify {earlier.uri}` says what else is amiss."
        )
    return from_bytes(body)


def _slices(runs: Sequence[Gathered], bucket: int) -> list[_Slice]:
    return [(run.file, start, stop) for run in runs for number, start, stop in run.ranges if number == bucket]


def _merge(bucket: tuple[int, list[_Slice]], into: Store, folder: str) -> tuple[int, tuple[str, int]]:
    """Write a bucket, sorted by key; returns its number, and the key and size of its file."""
    number, places = bucket
    body = to_bytes(
        distinct(pa.concat_tables(batch for place in places for batch in read_table_rows(*place))), _ROW_GROUP
    )
    key = f"{folder}/bucket-{number:06}-{sha256(body)[:16]}.parquet"
    into.create(key, body)
    return number, (key, len(body))


def _bucket(query_keys: NDArray[np.uint64], count: int) -> NDArray[np.int64]:
    """The bucket of each query, by the leading bits of its key, so that a bucket is a range of keys."""
    if count == 1:
        return np.zeros(len(query_keys), dtype=np.int64)
    shift = 64 - (count.bit_length() - 1)
    return (query_keys >> np.uint64(shift)).astype(np.int64)


def _known(file: InputFile, queries: NDArray[np.uint64], pairs: pa.Array) -> pa.Table:
    """The rows of a bucket that hold some pairs; reads no row group but those that hold their queries."""
    footer, lows, highs = _footer(file)
    hit = np.searchsorted(queries, lows, side="left") < np.searchsorted(queries, highs, side="right")
    groups = np.flatnonzero(hit).tolist()
    if not groups:
        return SCHEMA.empty_table()
    with storage_errors(file.uri), open_file(file) as handle:
        parquet = pq.ParquetFile(handle, metadata=footer, pre_buffer=False, page_checksum_verification=True)
        table = read_groups(file, parquet, groups)
    return table.filter(pc.is_in(table.column("pair_key"), value_set=pairs))


@lru_cache(maxsize=1024)
def _footer(file: InputFile) -> tuple[Any, NDArray[np.uint64], NDArray[np.uint64]]:
    """The footer of a bucket, and the smallest and largest query key of each row group."""
    with storage_errors(file.uri), open_file(file) as handle:
        footer = open_parquet(file, handle).metadata
    at = footer.schema.names.index("query_key")
    ranges = [footer.row_group(group).column(at).statistics for group in range(footer.num_row_groups)]
    lows = np.array([found.min for found in ranges], dtype=np.uint64)
    return footer, lows, np.array([found.max for found in ranges], dtype=np.uint64)


def _marked(marker: bytes) -> str | None:
    try:
        found: str | None = orjson.loads(marker).get("manifest_sha256")
    except (ValueError, AttributeError):
        return None
    return found
