"""Which queries a `rankmill retry-rejected` ranks again: all those with a row that was rejected for a mendable reason.

Whole queries, not single rows, because a ranking is of a query: what the new job writes replaces the rankings of those
queries as they stand, with the right ranks, retrieval ranks and top k, also when it scores in another precision. Where
that job kept its scores and the precision is the same, only the rows without one are scored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from rankmill.batch.recorded import Recorded
from rankmill.errors import StorageError
from rankmill.tables.locate import InputFile
from rankmill.tables.runs import Runs

MENDABLE = ("model_error", "no_answer", "non_finite_score", "out_of_memory", "worker_crash")
"""Reasons that lie in the model or the machine; the others lie in the input, and stay until it changes."""


@dataclass(frozen=True, slots=True, eq=False)
class Retry:
    """Rows of an earlier job's input whose queries are ranked again."""

    job: str
    """Fingerprint of the earlier job."""
    reasons: tuple[str, ...]
    rows: Mapping[str, NDArray[np.int64]]
    """Row numbers, ascending, by URI of the input file."""

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.rows.values())

    @property
    def identity(self) -> dict[str, object]:
        """What the new job's record keeps of it."""
        return {"job": self.job, "reasons": list(self.reasons)}

    def only(self, files: Sequence[InputFile], runs: Sequence[Runs]) -> list[Runs]:
        """The runs of the chosen queries, wherever their rows lie.

        Args:
            files: the input files.
            runs: where each query's rows lie, one per file.
        """
        hit: list[NDArray[np.uint64]] = [np.zeros(0, dtype=np.uint64)]
        for file, run in zip(files, runs, strict=True):
            rows = self.rows.get(file.uri)
            if rows is not None:
                hit.append(run.query[np.searchsorted(run.start, rows, side="right") - 1])
        queries = np.unique(np.concatenate(hit))
        return [run.where(np.isin(run.query, queries)) for run in runs]


def rejected_rows_of(recorded: Recorded, reasons: Sequence[str]) -> Retry:
    """Read which rows a finished job rejected for these reasons.

    Raises:
        StorageError: a file of rejected rows is damaged, or cannot be read.
    """
    found: dict[str, list[NDArray[np.int64]]] = {}
    for _, receipt in sorted(recorded.receipts().items()):
        if not receipt.rejected_part:
            continue
        body = recorded.store.read(receipt.rejected_part)
        try:
            table = pq.read_table(pa.BufferReader(body), page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            uri = recorded.store.join(receipt.rejected_part)
            raise StorageError(f"{uri} is damaged ({error}); `rankmill verify --deep` says more.") from error
        table = table.filter(pc.is_in(table.column("reason"), pa.array(reasons)))
        for source in pc.unique(table.column("source")).to_pylist():
            mine = table.filter(pc.equal(table.column("source"), source))
            found.setdefault(source, []).append(mine.column("row").to_numpy())
    rows = {source: np.unique(np.concatenate(parts)) for source, parts in sorted(found.items())}
    return Retry(str(recorded.job["fingerprint"]), tuple(reasons), rows)
