"""The TREC run that `--trec-run` asks for: refused early where it cannot be written, made of the finished parts."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from rankmill.batch.receipts import Receipt
from rankmill.errors import UsageError
from rankmill.storage.store import Store
from rankmill.tables.trec import open_text, write_run


def refuse_destination(uri: str) -> None:
    """Refuse a file that could not be written at the end; buckets are not asked.

    Raises:
        UsageError: an unknown protocol, a folder that does not exist or may not be written to, or no file's name.
    """
    try:
        system, path = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise UsageError(f"--trec-run {uri}: {error}") from error
    if not isinstance(system, LocalFileSystem):
        return
    file = Path(path)
    if file.is_dir() or uri.endswith("/"):
        raise UsageError(f"--trec-run {uri} is a folder; name a file in it.")
    if not file.parent.is_dir():
        raise UsageError(f"--trec-run {uri}: there is no folder {file.parent}; make it first.")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UsageError(f"--trec-run {uri}: no permission to write it.")


def write(uri: str, store: Store, receipts: Mapping[int, Receipt]) -> None:
    """Write the rankings of all parts, in order.

    Raises:
        InputError: an id with whitespace, which the format cannot carry.
        StorageError: the store refused or cannot be reached.
    """
    with open_text(uri, "w", store.storage) as run:
        for table in _ranked_parts(store, receipts):
            write_run(run, table.rename_columns(["query_id", "doc_id", "rank", "score"]), tag="rankmill")


def _ranked_parts(store: Store, receipts: Mapping[int, Receipt]) -> Iterator[pa.Table]:
    """Yield query_id, doc_id, rank and logit of each part; one part is held at a time.

    The score of a run is the logit: evaluation tools order by score, and scores after a sigmoid tie where logits do
    not.
    """
    for index in sorted(receipts):
        table = pq.read_table(pa.BufferReader(store.read(receipts[index].part)), page_checksum_verification=True)
        if "candidates" in table.column_names:
            candidates = table.column("candidates").combine_chunks()
            fields = candidates.flatten()
            queries = table.column("query_id").combine_chunks().take(pc.list_parent_indices(candidates))
            yield pa.table({"query_id": queries, **{n: fields.field(n) for n in ("doc_id", "rank", "logit")}})
        else:
            yield table.select(["query_id", "doc_id", "rank", "logit"])
