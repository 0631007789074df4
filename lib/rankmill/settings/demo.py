"""Settings of `rankmill demo`."""

from pydantic import Field

from rankmill.settings.load import CommandSettings


class DemoSettings(CommandSettings):
    """Rerank real search results on this machine and measure the gain; offline, in a few minutes on two cores.

    The corpus is the documentation of the Python standard library, read from the running interpreter. About a hundred
    questions in a user's words are answered by BM25 (top 100) and reranked by the same batch job that
    `rankmill rerank` runs.
    """

    output: str = Field("demo-output", description="folder for everything the demonstration makes")
    model: str = Field("builtin", description="builtin, a hub id, or a local folder")
    max_length: int | None = Field(None, ge=8, description="tokens per pair at most (default: the model's limit)")
    workers: int | None = Field(None, ge=1, description="scoring workers (default: by machine)")
    as_json: bool = Field(False, alias="json", description="print a machine-readable summary to stdout, last")
    quiet: bool = Field(False, description="print nothing but the summary of --json")
