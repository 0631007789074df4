"""Settings of `jobs/join_bench.py`."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from rankmill.settings.bench import parse_count
from rankmill.settings.load import CommandSettings

Count = Annotated[int, Field(ge=1), BeforeValidator(parse_count)]


class JoinBenchSettings(CommandSettings):
    """Make a run, its queries and its corpus, and join them: with the batch job's join, and with Ray Data's.

    Nothing is scored. Each side runs in a process of its own on a Ray of its own, one after the other, on the same
    files; seconds are of the join alone, without the start of Ray, and the peak is of all its processes together, Ray's
    included. `--documents 1M --pairs 3M` is the case that has to stay within 8 GiB.
    """

    documents: Count = Field(100_000, description="documents of the corpus, such as 1M")
    pairs: Count = Field(300_000, description="pairs of the run, such as 3M")
    candidates: int = Field(100, ge=1, description="pairs of a query")
    words: int = Field(60, ge=1, description="words of a document, on average; a word has about 6 bytes")
    form: Literal["parquet", "beir"] = Field(
        "parquet",
        description="Parquet, or the run in TREC's format and the texts in JSONL, which Ray Data's join skips",
    )
    against: Literal["ray-data", "nothing"] = Field("ray-data", description="what to compare with; needs polars")
    rounds: int = Field(1, ge=1, description="how often each side joins; medians of seconds, maxima of peaks")
    folder: str | None = Field(None, description="where the files are made, and left; (default: a temporary folder)")
    as_json: bool = Field(False, alias="json", description="print a machine-readable summary to stdout, last")

    @model_validator(mode="after")
    def _forms_that_go_together(self) -> Self:
        if self.form == "beir" and self.against == "ray-data":
            raise ValueError("--form beir is for our side alone: say --against nothing.")
        return self
