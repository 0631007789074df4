"""Settings of `rankmill bench`."""

from pydantic import Field

from rankmill.settings.scorer import ScorerSettings


class BenchSettings(ScorerSettings):
    """Measure this machine: the bare scorer against the whole job on the same pairs, in interleaved rounds.

    The bare scorer tokenises and scores in one process with every core. The job is `rankmill rerank`, started as a
    process of its own: reading, tokenising, Ray Data, scoring, ranking, writing and committing; the start of its
    workers counts, the start of Ray does not.
    """

    input: str | None = Field(None, description="candidates to measure with (default: those of `rankmill demo`)")
    pairs: int | None = Field(2000, ge=1, description="use the first N pairs, rounded up to whole queries")
    all_pairs: bool = Field(False, description="use every pair of the input")
    rounds: int = Field(3, ge=1, description="rounds; medians of paired ratios are shown")
    workers: int | None = Field(None, ge=1, description="scoring workers of the job (default: by machine)")
    grow: int | None = Field(None, ge=2, description="also run the job on N times the pairs and compare its memory")
    as_json: bool = Field(False, alias="json", description="print a machine-readable summary to stdout, last")
    quiet: bool = Field(False, description="print nothing but the summary of --json")
