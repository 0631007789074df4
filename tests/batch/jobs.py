"""Runs jobs in tests: on Ray, through the same function as the command line, or in this process."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rankmill.batch import job as batch
from rankmill.batch.executor import InProcess
from rankmill.batch.summary import JobSummary
from rankmill.cli.rerank import rerank
from rankmill.settings.rerank import RerankSettings


def settings_for(source: Path | str, output: Path | str, model: Path | str, **settings: Any) -> RerankSettings:
    """Settings of a small, quiet job."""
    return RerankSettings(
        **{"input": str(source), "output": str(output), "model": str(model), "shard_pairs": 20, "quiet": True}
        | settings
    )


def run_on_ray(source: Path | str, output: Path | str, model: Path | str, **settings: Any) -> JobSummary:
    """Rerank `source` into `output` on the test session's Ray cluster."""
    return rerank(settings_for(source, output, model, **settings))


def run_job(source: Path | str, output: Path | str, model: Path | str, **settings: Any) -> JobSummary:
    """Rerank `source` into `output` in this process."""
    job = batch.prepare(settings_for(source, output, model, **settings))
    return batch.already_complete(job) or batch.run(job, InProcess())


def read_rankings(output: Path | str) -> list[dict[str, Any]]:
    """Rows of the output, as any reader sees the folder, in an order that does not depend on shards."""
    table = pq.read_table(output)
    if "rank" in table.column_names:
        table = table.sort_by([("query_id", "ascending"), ("rank", "ascending")])
    return list(table.to_pylist())


def read_rejected(output: Path) -> pa.Table:
    """Rejected rows, by source and row."""
    return pq.read_table(output / "_rejected").sort_by([("source", "ascending"), ("row", "ascending")])
