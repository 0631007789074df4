"""What a finished job reports, in words."""

from dataclasses import fields, replace
from typing import Any

import pytest

from rankmill.batch.receipts import Totals
from rankmill.batch.summary import JobSummary
from rankmill.wording import counted


def summary(number: int) -> JobSummary:
    """Of a job in which there was so much of everything."""
    numbers: dict[str, Any] = {field.name: number for field in fields(Totals)}
    totals = Totals(**numbers)
    return JobSummary(
        output="out",
        model="m",
        totals=replace(totals, pairs_in=2 * number),
        run_pairs=number,
        seconds=61.0,
        pipeline_seconds=1.0,
        scoring_share=0.5,
        workers=number,
        driver_peak_bytes=0,
        unverified_inputs=number,
        already_complete=False,
    )


def test_one_of_everything_is_singular() -> None:
    assert summary(1).text().splitlines() == [
        "Done in 0:01:01: 1 pair, 1 pairs/s, 50% of the time scoring (1 worker, m)",
        "1 query, 1 pair scored, 1 row kept",
        "1 pair with the score that an earlier job gave (--reuse)",
        "1 pair with the score of a pair of the same texts",
        "1 pair cut to the model's length (column truncated)",
        "1 pair with a (query_id, doc_id) that came before; all kept",
        "1 query_id with more than one query text, the first 1",
        "1 row could not be scored: out/_rejected",
        "1 input file without checksums: write Parquet with page checksums, or .gz",
        "Output: out",
    ]


def test_several_are_plural_and_none_is_not_worth_a_line() -> None:
    several = summary(1200).text()
    assert "1,200 queries, 1,200 pairs scored, 1,200 rows kept" in several
    assert "1,200 input files without checksums" in several
    assert len(summary(0).text().splitlines()) == 3


@pytest.mark.parametrize(("number", "said"), [(0, "0 queries"), (1, "1 query"), (1200, "1,200 queries")])
def test_counted(number: int, said: str) -> None:
    assert counted(number, "query", "queries") == said
    assert counted(number, "file") == said.replace("query", "file").replace("queries", "files")
