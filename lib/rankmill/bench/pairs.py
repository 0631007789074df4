"""The pairs to measure with."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rankmill.demo.collection import build
from rankmill.errors import InputError

_NEEDED = {"query_id", "query", "doc_id", "text"}


def read_pairs(source: str | None, most: int | None) -> pa.Table:
    """Read `query_id, query, doc_id, text` and maybe `title`, one row per pair.

    Args:
        source: a Parquet file; None is what `rankmill demo` reranks.
        most: the first so many, rounded up to whole queries; None is all of them.

    Raises:
        InputError: a column is missing, or there are no rows.
    """
    if source is None:
        with tempfile.TemporaryDirectory(prefix="rankmill-bench-") as folder:
            table = build(Path(folder)).candidates
    else:
        table = pq.read_table(source)
    missing = _NEEDED - set(table.column_names)
    if missing:
        raise InputError(f"--input {source} lacks {', '.join(sorted(missing))}; bench reads pairs from Parquet.")
    if not len(table):
        raise InputError(f"--input {source} holds no pairs; there is nothing to measure with.")
    return table if most is None or len(table) <= most else _whole_queries(table, most)


def texts_of(pairs: pa.Table) -> tuple[list[str], list[str]]:
    """Queries and documents, titles in front, as a job joins them."""
    text = pairs.column("text").to_pylist()
    titles = pairs.column("title").to_pylist() if "title" in pairs.column_names else [None] * len(text)
    documents = [f"{title} {body}" if title else body for title, body in zip(titles, text, strict=True)]
    return pairs.column("query").to_pylist(), documents


def write_repeated(pairs: pa.Table, times: int, path: Path) -> None:
    """Write the pairs several times over, as queries of their own; one copy is held at a time."""
    ids = pairs.column("query_id").cast(pa.string())
    position = pairs.schema.get_field_index("query_id")
    with pq.ParquetWriter(path, pairs.set_column(position, "query_id", ids).schema) as writer:
        for copy in range(times):
            renamed = pc.binary_join_element_wise(pa.scalar(str(copy)), ids, "-")
            writer.write_table(pairs.set_column(position, "query_id", renamed))


def _whole_queries(table: pa.Table, most: int) -> pa.Table:
    last = pc.equal(table.column("query_id"), table.column("query_id")[most - 1])
    end = int(np.flatnonzero(last.to_numpy(zero_copy_only=False))[-1]) + 1
    return table.slice(0, end)
