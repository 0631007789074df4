"""Settings of `rankmill retry-rejected`."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from rankmill.settings.load import CommandSettings
from rankmill.settings.rerank import Allowance, Names, Workers
from rankmill.settings.storage import StorageSettings


class RetrySettings(CommandSettings):
    """Rank the queries again that lost rows in FINISHED for a reason that may be gone, and write them to OUTPUT.

    FINISHED is the output of a finished job; its input must be unchanged. Every query with such a row is ranked again
    as a whole, with the settings of that job, so that OUTPUT holds complete rankings: they replace those that FINISHED
    has of the same query ids. The same command, run again, continues where it stopped.
    """

    finished: CliPositionalArg[str] = Field(description="output of a finished job; local path or URI")
    output: str = Field(description="folder for the new rankings; local path or URI")
    reason: Names = Field(
        (),
        description="reasons to try again (default: model_error, no_answer, non_finite_score, out_of_memory, "
        "worker_crash)",
    )
    precision: Literal["float32", "bfloat16", "float16"] | None = Field(
        None, description="another precision, such as float32 where bfloat16 gave no finite score (default: as before)"
    )
    engine: Literal["auto", "torch", "openvino"] | None = Field(None, description="another engine (default: as before)")
    batch_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        None, description="padded tokens per forward pass; fewer take less memory (default: as before)"
    )
    trust_remote_code: bool = Field(
        False, description="run the Python code in the model's folder, where it brings its own"
    )
    workers: Workers | None = Field(None, description="scoring workers: N, or MIN,MAX to scale (default: by machine)")
    gpus_per_worker: float | None = Field(None, ge=0, description="GPUs per worker (default: 1, or 0)")
    cpus_per_worker: int | None = Field(
        None, ge=1, description="threads of a worker without a GPU (default: by machine)"
    )
    max_rejected: Allowance = Field("100%", description="rows that may be rejected again, a number or a share")
    storage: StorageSettings = Field(default_factory=StorageSettings)
    address: str | None = Field(None, description="Ray cluster to use (default: RAY_ADDRESS, else start one here)")
    as_json: bool = Field(False, alias="json", description="print a machine-readable summary to stdout, last")
    quiet: bool = Field(False, description="no progress and no logs")
