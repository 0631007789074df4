"""The end of a job: what was done, how fast, and where it is."""

from dataclasses import asdict, dataclass
from datetime import timedelta

import orjson

from rankmill.batch.receipts import Totals

UNVERIFIED = (
    "input files could not be verified: they carry no checksums (page checksums in Parquet, or .gz), "
    "so that a byte that flipped in them earlier goes unnoticed"
)
"""What comes after their number; the same words in the summary of a job and in `rankmill verify`."""


@dataclass(frozen=True, slots=True)
class JobSummary:
    """What a finished job reports."""

    output: str
    model: str
    totals: Totals
    """Of the whole output, shards of earlier runs included."""
    run_pairs: int
    """Pairs of this run."""
    seconds: float
    """Wall time of this run, from the command to the marker."""
    pipeline_seconds: float
    """Wall time of this run's pipeline: without planning, start-up of Ray and finishing."""
    scoring_share: float
    """Share of the pipeline's time that its workers spent in forward passes."""
    workers: int
    driver_peak_bytes: int
    """Most memory this process ever held (resident); it does not grow with the input."""
    unverified_inputs: int
    """Files of the input that carry no checksums."""
    already_complete: bool

    @property
    def pairs_per_second(self) -> float:
        """Pairs of this run per second of its pipeline."""
        return self.run_pairs / self.pipeline_seconds if self.pipeline_seconds else 0.0

    def to_json(self) -> str:
        """One line of JSON."""
        values = asdict(self) | {"pairs_per_second": self.pairs_per_second}
        return orjson.dumps(values | values.pop("totals")).decode()

    def text(self) -> str:
        """Some lines for a person."""
        totals = self.totals
        if self.already_complete:
            head = f"Already complete: {self.output}"
        else:
            head = (
                f"Done in {timedelta(seconds=round(self.seconds))}: {self.run_pairs:,} pairs, "
                f"{self.pairs_per_second:,.0f} pairs/s, {self.scoring_share:.0%} of the time scoring "
                f"({self.workers} {'worker' if self.workers == 1 else 'workers'}, {self.model})"
            )
        counts = f"{totals.queries:,} queries, {totals.scored:,} pairs scored, {totals.rows_out:,} rows kept"
        notes = [
            f"{number:,} {text}"
            for number, text in (
                (totals.reused, "pairs have the score that an earlier job gave them (--reuse)"),
                (totals.repeated, "pairs have the score of a pair with the same texts"),
                (totals.truncated, "pairs were cut to the model's length (column truncated)"),
                (totals.duplicates, "pairs have a (query_id, doc_id) that came before; all were kept"),
                (totals.rejected, f"rows could not be scored: {self.output}/_rejected"),
                (self.unverified_inputs, UNVERIFIED),
            )
            if number
        ]
        return "\n".join([head, counts, *notes, f"Output: {self.output}"])
