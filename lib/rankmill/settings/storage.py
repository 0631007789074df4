"""Where object stores are and who signs for them: one value, for inputs and outputs, driver and workers."""

from typing import Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator


class StorageSettings(BaseModel):
    """Flags `--storage.…`. Nothing secret can be given here: keys come from the environment, a profile or a role.

    The value travels with every task, so it holds names only; each process resolves the credentials behind them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    endpoint: str | None = Field(
        None, description="URL of an S3-compatible store (default: AWS_ENDPOINT_URL, else the profile's, else AWS)"
    )
    profile: str | None = Field(None, description="profile of ~/.aws/config that signs (default: AWS_PROFILE)")
    region: str | None = Field(None, description="region of the buckets (default: AWS_REGION, else the profile's)")
    retry_seconds: float = Field(300.0, gt=0, description="how long a request is repeated while the store has trouble")
    lease_seconds: float = Field(30.0, gt=0, description="silence after which another run may take over the output")

    @model_validator(mode="after")
    def _plain_endpoint(self) -> Self:
        if self.endpoint is None:
            return self
        parts = urlsplit(self.endpoint)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("--storage.endpoint must be a URL such as https://s3.example.com:9000.")
        if parts.username or parts.password or parts.query:
            raise ValueError(
                "--storage.endpoint must hold no user, password or query; give keys by AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or by --storage.profile."
            )
        return self
