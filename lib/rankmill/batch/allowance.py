"""How many rows a job may reject, and the end of one that rejects more."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from rankmill.batch.progress import Report
from rankmill.batch.receipts import Receipt, Totals, total
from rankmill.errors import StorageError, TooManyRejectedError
from rankmill.storage.store import Store
from rankmill.wording import counted

_READERS = 16  # files of rejected rows are small and may be far away: the wait is latency


def allowed_rejects(allowance: str, rows: int) -> int:
    """Rows that may be rejected: `100` is a number, `0.1%` a share of all rows, rounded down."""
    if allowance.endswith("%"):
        return int(rows * float(allowance.removesuffix("%")) / 100)
    return int(allowance)


def collect(
    stream: Iterator[Receipt], earlier: Collection[Receipt], report: Report, allowance: str, pairs: int, store: Store
) -> None:
    """Take receipts as they come; stop as soon as too many rows are rejected.

    Args:
        stream: of this run.
        earlier: of the runs before it.
        report: is told the totals after each.
        allowance: rows that may be rejected, as `--max-rejected` has it.
        pairs: of the whole job.
        store: the output, whose files of rejected rows hold the reasons.

    Raises:
        TooManyRejectedError: more rows were rejected than that; with the number for each reason.
    """
    totals = total(earlier)
    files = [receipt.rejected_part for receipt in earlier if receipt.rejected_part]
    allowed = allowed_rejects(allowance, pairs)
    for receipt in stream:
        totals = totals.plus(receipt)
        files += [receipt.rejected_part] if receipt.rejected_part else []
        report(totals)
        if totals.rejected > allowed:
            break
    if totals.rejected > allowed:
        raise TooManyRejectedError(_sentence(totals, allowed, allowance, _reasons(store, files)))


def _sentence(totals: Totals, allowed: int, allowance: str, reasons: str) -> str:
    return (
        f"{counted(totals.rejected, 'row')} could not be scored{reasons}, of {totals.pairs_in:,} so far; "
        f"--max-rejected {allowance} allows {allowed:,}. _rejected/ in the output says which and why. Mend the input "
        "and start a new job, or run the same command with a larger --max-rejected: finished shards are kept."
    )


def _reasons(store: Store, files: Sequence[str]) -> str:
    """How many rows for each reason, in brackets; nothing where a file cannot be read: this is no time for that."""

    def read(key: str) -> list[str]:
        reasons: list[str] = pq.read_table(pa.BufferReader(store.read(key)), columns=["reason"])["reason"].to_pylist()
        return reasons

    counts: Counter[str] = Counter()
    try:
        with ThreadPoolExecutor(_READERS) as pool:
            for reasons in pool.map(read, files):
                counts.update(reasons)
    except (StorageError, pa.ArrowException, OSError):
        return ""
    return f" ({', '.join(f'{number:,} {reason}' for reason, number in counts.most_common())})"
