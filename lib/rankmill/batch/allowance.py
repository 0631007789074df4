"""How many rows a job may reject, and the end of one that rejects more."""

from collections.abc import Iterator

from rankmill.batch.progress import Report
from rankmill.batch.receipts import Receipt, Totals
from rankmill.errors import TooManyRejectedError


def allowed_rejects(allowance: str, rows: int) -> int:
    """Rows that may be rejected: `100` is a number, `0.1%` a share of all rows, rounded down."""
    if allowance.endswith("%"):
        return int(rows * float(allowance.removesuffix("%")) / 100)
    return int(allowance)


def collect(stream: Iterator[Receipt], before: Totals, report: Report, allowance: str, pairs: int) -> None:
    """Take receipts as they come; stop as soon as too many rows are rejected.

    Args:
        stream: of this run.
        before: what earlier runs did.
        report: is told the totals after each.
        allowance: rows that may be rejected, as `--max-rejected` has it.
        pairs: of the whole job.

    Raises:
        TooManyRejectedError: more rows were rejected than that.
    """
    totals = before
    allowed = allowed_rejects(allowance, pairs)
    for receipt in stream:
        totals = totals.plus(receipt)
        report(totals)
        _refuse(totals, allowed, allowance)
    _refuse(totals, allowed, allowance)


def _refuse(totals: Totals, allowed: int, allowance: str) -> None:
    if totals.rejected > allowed:
        raise TooManyRejectedError(
            f"{totals.rejected:,} rows could not be scored, of {totals.pairs_in:,} so far; --max-rejected {allowance} "
            f"allows {allowed:,}. _rejected/ in the output says which and why. Mend the input and start a new job, or "
            "run the same command with a larger --max-rejected: finished shards are kept."
        )
