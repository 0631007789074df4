"""Settings of `rankmill plan`."""

from pydantic import Field

from rankmill.settings.rerank import RerankSettings


class PlanSettings(RerankSettings):
    """Say what `rankmill rerank` would do with the same flags, and what it would take; runs nothing, writes nothing.

    Everything that can be refused is: unreadable files, columns, the model, an OUTPUT that holds another job. Tokens
    are estimated from a sample; for a run, from texts of --queries and --corpus, which are not joined here. Where
    `rankmill bench` has measured the same model here, also the time, and with --gpu-price the cost; with --bench, from
    the file that `rankmill bench --json` printed on one of the GPUs (or machines) to be used.
    """

    output: str = Field("", description="folder for the rankings, if it is to be looked at too")
    bench: str | None = Field(
        None, description="file with what `rankmill bench --json` printed (default: the last result here, if any)"
    )
    gpu_price: float | None = Field(None, ge=0, description="of one GPU, or machine without, for an hour")
