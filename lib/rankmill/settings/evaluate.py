"""Settings of `rankmill evaluate`."""

from pydantic import Field

from rankmill.settings.load import CommandSettings
from rankmill.settings.storage import StorageSettings


class EvaluateSettings(CommandSettings):
    """Measure a run against judgements, and against a baseline run where there is one.

    QRELS is BEIR TSV (header query-id corpus-id score), TREC (4 columns) or Parquet (query_id, doc_id, relevance).
    Runs are TREC (6 columns), Parquet (query_id, doc_id, score) or the output folder of `rankmill rerank`. All may be
    local paths or any fsspec URI; text may be gzipped. Judged queries without results score 0 and count.
    """

    qrels: str = Field(description="judgements: file, local path or URI")
    run: str = Field(description="the run to measure: file, glob or folder, local path or URI")
    baseline: str | None = Field(None, description="another run of the same queries to compare with")
    measures: str = Field("nDCG@10 RR@10 P@5 R@100", description="names as in ir-measures, separated by blanks")
    report: str | None = Field(None, description="also write a self-contained HTML page to this file")
    storage: StorageSettings = Field(default_factory=StorageSettings)
    as_json: bool = Field(False, alias="json", description="print a machine-readable summary to stdout, last")
    quiet: bool = Field(False, description="print nothing but the summary of --json")
