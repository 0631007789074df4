"""Settings of the online endpoint's front: what it accepts, from whom, and for how long."""

from pydantic import Field

from rankmill.settings.load import CommandSettings


class GatewaySettings(CommandSettings):
    """Limits, keys and deadlines of the endpoint (`rankmill.serving.gateway`).

    API keys are no settings: settings are shown in dashboards. They come from `keys_file`, from the environment
    variable `RANKMILL_API_KEYS`, or from both.
    """

    keys_file: str | None = Field(
        None, description="file with API keys, one a line, or sha256:HEX of one; read again when it changes"
    )
    require_key: bool = Field(
        False, description="refuse to start without API keys; for addresses that other machines can reach"
    )
    max_body_bytes: int = Field(4 * 1024 * 1024, ge=1, description="bytes of a request's body at most")
    max_documents: int = Field(1000, ge=1, description="documents of a request at most")
    max_document_characters: int = Field(32_000, ge=1, description="characters of a document at most; longer: refused")
    max_query_characters: int = Field(8_000, ge=1, description="characters of a query at most; longer: refused")
    max_request_tokens: int = Field(
        600_000, ge=1, description="tokens of all pairs of a request at most, after cutting"
    )
    max_running_requests: int = Field(
        256, ge=1, description="rerank requests that a gateway process works on at a time; more: 429"
    )
    timeout_seconds: float = Field(
        30.0, gt=0, description="time for a request at most; X-Request-Timeout-Ms may ask for less"
    )
    body_seconds: float = Field(10.0, gt=0, description="time for a request's body to arrive")
    tokenizer_threads: int = Field(2, ge=1, description="requests tokenised at the same time")
    encoder_variants: int = Field(
        16, ge=1, description="tokenisers kept for requests with limits or instructions of their own"
    )
