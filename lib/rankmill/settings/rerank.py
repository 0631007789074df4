"""Settings of `rankmill rerank`."""

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rankmill.settings.scorer import ScorerSettings
from rankmill.settings.storage import StorageSettings


class Columns(BaseModel):
    """Which input column plays which part; every name can be mapped, for example `--columns.text body`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query_id: str = Field("query_id", description="id of the query (string or integer)")
    query: str = Field("query", description="text of the query")
    doc_id: str = Field("doc_id", description="id of the document (string or integer)")
    text: str = Field("text", description="text of the document")
    title: str = Field("title", description="title of the document (optional column)")
    retrieval_score: str = Field("retrieval_score", description="score of the first stage (optional column)")
    candidates: str = Field("candidates", description="list of candidates of a query (nested input)")


def _split_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _workers(value: object) -> object:
    """Read `2`, `1,8` or, as the command line hands them over, `["2"]` and `["1", "8"]`."""
    parts = value if isinstance(value, list | tuple) else str(value).split(",")
    texts = [str(part).strip() for part in parts]
    if len(texts) not in {1, 2} or not all(text.isdecimal() for text in texts):
        raise ValueError("give a number, or a range such as 1,8")
    return (int(texts[0]), int(texts[-1]))


def _allowance(value: object) -> object:
    text = str(value)
    if not re.fullmatch(r"\d+|\d+(\.\d+)?%", text):
        raise ValueError("give a number of rows such as 100, or a share such as 0.1%")
    return text


Names = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]
Workers = Annotated[tuple[int, int], BeforeValidator(_workers)]
Allowance = Annotated[str, BeforeValidator(_allowance)]


class RerankSettings(ScorerSettings):
    """Rerank candidates from INPUT with a cross-encoder and write rankings to OUTPUT as Parquet.

    INPUT is Parquet or JSONL(.gz): a file, a folder or a glob, local or any fsspec URI. One row per pair
    (query_id, query, doc_id, text, ...) or one row per query with a list of candidates. With --queries and --corpus,
    INPUT is a run (query_id, doc_id, retrieval_score) in Parquet or in TREC's format. The same command, run again,
    continues where it stopped.
    """

    input: str = Field(description="file, folder or glob of candidates; local path or URI such as s3://bucket/folder")
    output: str = Field(description="folder for the rankings; local path or URI")
    queries: str | None = Field(
        None, description="texts of the queries of a run: Parquet, or JSONL(.gz) as BEIR has it"
    )
    corpus: str | None = Field(None, description="texts of the documents of a run: Parquet, or JSONL(.gz)")
    top_k: int | None = Field(None, ge=1, description="keep the best K candidates of each query (default: all)")
    keep: Names = Field((), description="input columns, or of --corpus, to carry into the output, with commas")
    shape: Literal["pairs", "nested"] = Field("pairs", description="one row per pair, or one row per query")
    keep_scores: bool = Field(False, description="keep each pair's score by the hash of its texts, for a later --reuse")
    reuse: str | None = Field(
        None, description="output of a finished job with --keep-scores: pairs it scored are not scored again"
    )
    trec_run: str | None = Field(None, description="also write a TREC run to this file")
    publish: Literal["delta"] | None = Field(
        None, description="when the job is done, make OUTPUT a Delta table too (one entry of a _delta_log, no copy)"
    )
    columns: Columns = Field(default_factory=Columns)
    document_template: str | None = Field(
        None, description="document text from columns in braces (default: '{title} {text}' where there is a title)"
    )
    activation: Literal["model", "raw", "sigmoid"] = Field("model", description="what turns logits into scores")
    workers: Workers | None = Field(None, description="scoring workers: N, or MIN,MAX to scale (default: by machine)")
    gpus_per_worker: float | None = Field(
        None, ge=0, description="GPUs per worker, fractions allowed (default: 1, or 0)"
    )
    cpus_per_worker: int | None = Field(
        None, ge=1, description="threads of a worker without a GPU (default: by machine)"
    )
    shard_pairs: int | None = Field(
        None, ge=1, description="pairs per shard, the unit of work (default: by input size)"
    )
    max_rejected: Allowance = Field("0.1%", description="rejected rows allowed, a number or a share such as 0.1%")
    bad_files: Literal["refuse", "reject"] = Field(
        "refuse", description="files that cannot be read: refuse the job, or reject them and score the others"
    )
    max_text_bytes: int = Field(
        16 << 20,
        ge=1,
        description="bytes a text, query or id may have, and a line of JSONL four times as many (64 MiB at least); "
        "a row with a longer one is rejected",
    )
    require_unique: bool = Field(False, description="refuse an input that has a document twice for a query")
    forward_timeout: float = Field(
        600,
        ge=0,
        description="seconds after which a forward pass (of a python: scorer a call, of the tokenizer a shard) hangs: "
        "its process is killed, and the row that it hangs on found and rejected (0: never)",
    )
    no_progress_timeout: float = Field(
        1800, ge=0, description="seconds without a finished shard after which the job fails (0: never)"
    )
    storage: StorageSettings = Field(default_factory=StorageSettings)
    allow_unsafe_store: bool = Field(
        False, description="write to a store without conditional writes; two runs at once could spoil the output"
    )
    address: str | None = Field(None, description="Ray cluster to use (default: RAY_ADDRESS, else start one here)")
    as_json: bool = Field(False, alias="json", description="print a machine-readable summary to stdout, last")
    quiet: bool = Field(False, description="no progress and no logs")

    @property
    def keeps_scores(self) -> bool:
        """Whether a later job can reuse the scores; who reuses some keeps them, so that each night follows another."""
        return self.keep_scores or self.reuse is not None

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if self.workers is not None and not 1 <= self.workers[0] <= self.workers[1]:
            low, high = self.workers
            raise ValueError(f"--workers {low},{high}: the minimum must be at least 1 and at most the maximum.")
        return self

    @model_validator(mode="after")
    def _both_tables(self) -> Self:
        if (self.queries is None) != (self.corpus is None):
            given, other = ("--queries", "--corpus") if self.corpus is None else ("--corpus", "--queries")
            raise ValueError(f"{given} needs {other}: a run is joined with both.")
        return self
