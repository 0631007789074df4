"""Checks of one part: its footer, or all of it, against its commit record."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rankmill.batch.parts import SCORER, SHA256, counts_in, footer_of
from rankmill.batch.receipts import Receipt
from rankmill.errors import first_line
from rankmill.ranking.rank import codes
from rankmill.storage.store import Store
from rankmill.tables.runs import runs_of

_END_BYTES = 64 << 10  # most footers are smaller, and come with one request


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be."""

    file: str
    """Key, relative to the output folder."""
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.file}: expected {self.expected}; found {self.found}"


@dataclass(frozen=True, slots=True)
class Look:
    """What all parts of an output have in common."""

    store: Store
    scorer: str
    """Fingerprint."""
    nested: bool
    top_k: int | None


def check_footer(receipt: Receipt, look: Look) -> list[Problem]:
    """Check a part by its footer: hash, row count, what it says of itself. The part has the right size."""
    key, size = receipt.part, receipt.part_bytes
    end = look.store.read_end(key, size, _END_BYTES)
    footer = footer_of(end)
    if footer is None and len(end) < size:
        wanted = int.from_bytes(end[-8:-4], "little") + 8
        footer = footer_of(look.store.read_end(key, size, min(wanted, size)))
    found = hashlib.sha256(footer or b"").hexdigest()
    if found != receipt.footer_sha256:
        return [Problem(key, f"a footer of sha256 {receipt.footer_sha256}", found)]
    return _metadata(receipt, look, b"PAR1" + (footer or b""))


def check_part(receipt: Receipt, look: Look) -> tuple[list[Problem], NDArray[np.uint64]]:
    """Check a whole part; returns also the hash of each of its query ids, shape (queries,)."""
    body = look.store.read(receipt.part)
    none: NDArray[np.uint64] = np.zeros(0, dtype=np.uint64)
    found = hashlib.sha256(body).hexdigest()
    if found != receipt.part_sha256:  # whatever else is wrong follows from that
        return [Problem(receipt.part, f"sha256 {receipt.part_sha256}", found)], none
    try:
        table = pq.read_table(pa.BufferReader(body), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        return [Problem(receipt.part, "Parquet with the right page checksums", first_line(error))], none
    problems = _metadata(receipt, look, body) + _object(receipt, look)
    rows = _flat(table) if look.nested else table
    query_codes = codes(rows.column("query_id").combine_chunks())
    problems += _ranks(receipt.part, query_codes, rows, look.top_k)
    problems += _ids(receipt, query_codes, rows)
    if len(rows) != receipt.rows_out:
        problems.append(Problem(receipt.part, f"{receipt.rows_out} ranked pairs", f"{len(rows)}"))
    ids = table.column("query_id").combine_chunks()
    return problems, np.unique(runs_of(ids, np.ones(len(ids), dtype=np.int64), 0).query)


def check_rejected(receipt: Receipt, look: Look) -> list[Problem]:
    """Check a whole file of rejected rows."""
    key = receipt.rejected_part
    body = look.store.read(key)
    found = hashlib.sha256(body).hexdigest()
    if found != receipt.rejected_sha256:
        return [Problem(key, f"sha256 {receipt.rejected_sha256}", found)]
    try:
        rows = pq.read_table(pa.BufferReader(body), page_checksum_verification=True).num_rows
    except (pa.ArrowException, OSError) as error:
        return [Problem(key, "Parquet with the right page checksums", first_line(error))]
    return [] if rows == receipt.rejected else [Problem(key, f"{receipt.rejected} rejected rows", f"{rows}")]


def check_scores(receipt: Receipt, look: Look) -> list[Problem]:
    """Check a whole file of scores for later jobs."""
    found = hashlib.sha256(look.store.read(receipt.scores_part)).hexdigest()
    if found == receipt.scores_sha256:
        return []
    return [Problem(receipt.scores_part, f"sha256 {receipt.scores_sha256}", found)]


def twice(queries: Mapping[str, NDArray[np.uint64]]) -> list[Problem]:
    """Parts that rank a query that an earlier part ranks too; a shard holds whole queries.

    Args:
        queries: the hash of each query id, by part.
    """
    parts = sorted(queries)
    if not parts:
        return []
    hashes = np.concatenate([queries[part] for part in parts])
    owners = np.repeat(np.arange(len(parts)), [len(queries[part]) for part in parts])
    order = np.argsort(hashes, kind="stable")
    again = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    pairs = {(int(owners[order[at]]), int(owners[order[at + 1]])) for at in again}
    return [
        Problem(parts[later], "queries of its own", f"queries that {parts[earlier]} ranks too")
        for earlier, later in sorted(pairs)
    ]


def _metadata(receipt: Receipt, look: Look, footer: bytes) -> list[Problem]:
    key = receipt.part
    try:
        meta = pq.read_metadata(pa.BufferReader(footer))
        counts = counts_in(meta.metadata)
    except (pa.ArrowException, OSError, ValueError) as error:
        return [Problem(key, "a Parquet footer with counts", first_line(error))]
    problems = []
    rows = receipt.queries if look.nested else receipt.rows_out
    if meta.num_rows != rows:
        problems.append(Problem(key, f"{rows} rows", f"{meta.num_rows}"))
    scorer = (meta.metadata or {}).get(SCORER, b"").decode()
    if scorer != look.scorer:
        problems.append(Problem(key, f"scores of the scorer {look.scorer[:12]}", f"of {scorer[:12] or 'none'}"))
    for name, value in asdict(counts).items():
        if getattr(receipt, name) != value:
            problems.append(Problem(key, f"{name} {getattr(receipt, name)}, by its commit record", f"{value}"))
    return problems


def _object(receipt: Receipt, look: Look) -> list[Problem]:
    """The hash that lies beside the object, where there is one: whoever asks for no more than a HEAD believes it."""
    head = look.store.head(receipt.part)
    said = None if head is None else head.metadata.get(SHA256)
    if said in {None, receipt.part_sha256}:  # disks keep no metadata, and some tools copy none
        return []
    return [Problem(receipt.part, f"{SHA256} {receipt.part_sha256} in the object's metadata", str(said))]


def _flat(table: pa.Table) -> pa.Table:
    """One row per pair."""
    candidates = table.column("candidates").combine_chunks()
    fields = candidates.flatten()
    queries = table.column("query_id").combine_chunks().take(pc.list_parent_indices(candidates))
    return pa.table({"query_id": queries, **{n: fields.field(n) for n in ("doc_id", "rank", "logit")}})


def _ranks(key: str, query_codes: NDArray[np.int64], rows: pa.Table, top_k: int | None) -> list[Problem]:
    """Rows of a query lie together, ranked 1, 2, 3 … by falling logit."""
    if len(rows) == 0:
        return []
    rank = rows.column("rank").to_numpy().astype(np.int64)
    logit = rows.column("logit").to_numpy()
    starts = np.flatnonzero(np.append(True, query_codes[1:] != query_codes[:-1]))
    problems = []
    if len(starts) != len(np.unique(query_codes)):
        problems.append(Problem(key, "the rows of each query side by side", "rows of a query in several places"))
    lengths = np.diff(np.append(starts, len(rows)))
    expected = np.arange(len(rows)) - np.repeat(starts, lengths) + 1
    wrong = np.flatnonzero(rank != expected)
    if len(wrong):
        at = int(wrong[0])
        problems.append(Problem(key, f"rank {expected[at]} in row {at}", f"rank {rank[at]}"))
    if top_k is not None and lengths.max() > top_k:
        problems.append(Problem(key, f"{top_k} pairs per query at most", f"{lengths.max()}"))
    inside = np.ones(len(rows), dtype=bool)
    inside[starts] = False
    rising = np.flatnonzero(inside[1:] & ~(logit[1:] <= logit[:-1])) + 1
    if len(rising) or not np.isfinite(logit).all():
        at = int(rising[0]) if len(rising) else int(np.flatnonzero(~np.isfinite(logit))[0])
        problems.append(Problem(key, "finite logits that fall with the rank", f"{logit[at]} in row {at}"))
    return problems


def _ids(receipt: Receipt, query_codes: NDArray[np.int64], rows: pa.Table) -> list[Problem]:
    """No document twice for a query, unless it was there twice in the input."""
    if len(rows) == 0:
        return []
    pairs = np.stack([query_codes, codes(rows.column("doc_id").combine_chunks())])
    again = len(rows) - np.unique(pairs, axis=1).shape[1]
    if again > receipt.duplicates:
        found = f"{again} rows of a (query_id, doc_id) that came before"
        return [Problem(receipt.part, f"{receipt.duplicates} of those in the input", found)]
    return []
