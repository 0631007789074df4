"""The end of a job: what was done, how fast, and where it is."""

from dataclasses import asdict, dataclass
from datetime import timedelta

import orjson

from rankmill.batch.receipts import Totals
from rankmill.wording import counted


def unverified_inputs(files: int) -> str:
    """What is said of so many files of an input, in the summary of a job and by `rankmill verify`."""
    return f"{counted(files, 'input file')} without checksums: write Parquet with page checksums, or .gz"


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
    """Wall time of this run, from its first check to the marker; all but the start of Python and the end of Ray."""
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
                f"Done in {timedelta(seconds=round(self.seconds))}: {counted(self.run_pairs, 'pair')}, "
                f"{self.pairs_per_second:,.0f} pairs/s, {self.scoring_share:.0%} of the time scoring "
                f"({counted(self.workers, 'worker')}, {self.model})"
            )
        queries, scored = counted(totals.queries, "query", "queries"), counted(totals.scored, "pair")
        counts = f"{queries}, {scored} scored, {counted(totals.rows_out, 'row')} kept"
        notes = [
            f"{counted(number, noun)} {text}"
            for number, noun, text in (
                (totals.reused, "pair", "with the score that an earlier job gave (--reuse)"),
                (totals.repeated, "pair", "with the score of a pair of the same texts"),
                (totals.truncated, "pair", "cut to the model's length (column truncated)"),
                (totals.duplicates, "pair", "with a (query_id, doc_id) that came before; all kept"),
                (
                    totals.unlike_queries,
                    "query_id",
                    f"with more than one query text, the first {totals.first_unlike_query}",
                ),
                (totals.rejected, "row", f"could not be scored: {self.output}/_rejected"),
            )
            if number
        ]
        notes += [unverified_inputs(self.unverified_inputs)] if self.unverified_inputs else []
        return "\n".join([head, counts, *notes, f"Output: {self.output}"])
