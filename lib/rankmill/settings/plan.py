"""Settings of `rankmill plan`."""

from typing import Self

from pydantic import Field, model_validator

from rankmill.settings.rerank import RerankSettings


class PlanSettings(RerankSettings):
    """Say what `rankmill rerank` would do with the same flags, and what it would take; runs nothing, writes nothing.

    Everything that can be refused is: unreadable files, columns, the model, an OUTPUT that holds another job. Tokens
    are estimated from a sample. With --bench, the file that `rankmill bench --json` printed on one of the GPUs (or
    machines) to be used, also the time, and with --gpu-price the cost.
    """

    output: str = Field("", description="folder for the rankings, if it is to be looked at too")
    bench: str | None = Field(None, description="file with what `rankmill bench --json` printed")
    gpu_price: float | None = Field(None, ge=0, description="of one GPU, or machine without, for an hour")

    @model_validator(mode="after")
    def _price_of_something(self) -> Self:
        if self.gpu_price is not None and self.bench is None:
            raise ValueError("--gpu-price needs --bench: without a measured rate there is no time to pay for.")
        return self
