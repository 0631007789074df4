"""Settings of `rankmill bench --serve`."""

from pydantic import Field

from rankmill.settings.scorer import ScorerSettings


class ServeBenchSettings(ScorerSettings):
    """Measure the endpoint: what `rankmill serve` costs beyond the bare scorer, and other servers beside it.

    `rankmill serve` is started as a user would start it: its own processes, its own Ray, this machine's loopback; only
    the score cache is off, because requests come again. The bare scorer is in the process of this command, with the
    same engine and threads, and scores the same tokens; its logits are compared with the server's. Clients take turns
    with it, round after round; medians are shown, and of differences and ratios the median of the pairs' own.

    The overhead is what one request takes over HTTP, less what tokenising and scoring the same texts takes here, one
    request at a time. Where the forward pass takes seconds, that difference drowns in its noise (the spread, shown
    beside it). It is therefore measured a second time, with a network of next to no layers behind the built-in model's
    tokenizer, which takes the same way through the same server: all that is not the forward pass costs the same, and
    what is left is HTTP, gateway, queue and the two hops. Throughput is that of clients that ask without a pause,
    documents and sizes mixed; the bare scorer gets all their pairs at once. A small request is sent again and again
    while a large one is being scored.

    Other servers read the same model folder, score the same requests in the same rounds with the same threads, and
    must give the same logits. `fastapi` is what one writes by hand: FastAPI and `CrossEncoder.predict` of
    sentence-transformers, one request after the other, which on a CPU is faster than all at once.
    """

    input: str | None = Field(None, description="candidates to make requests of (default: those of `rankmill demo`)")
    pairs: int = Field(1000, ge=1, description="pairs of all mixed requests, the first of the input")
    rounds: int = Field(3, ge=1, description="rounds; medians are shown")
    threads: int | None = Field(None, ge=1, description="CPU threads of every side's forward pass (default: all cores)")
    against: str = Field("", description="other servers, with commas: fastapi, infinity")
    infinity: str = Field(
        "infinity_emb", description="Infinity's command; it needs an environment of its own, with other transformers"
    )
    documents: int = Field(100, ge=1, le=1000, description="documents of a request whose overhead is measured")
    document_bytes: int = Field(2000, ge=1, le=32_000, description="UTF-8 bytes of each of them")
    light_requests: int = Field(20, ge=1, description="such requests in a round, where the network is next to nothing")
    concurrency: int = Field(32, ge=1, le=256, description="requests on their way at a time, for the throughput")
    large: int = Field(1000, ge=1, le=1000, description="documents of the large request that small ones meet")
    small: int = Field(10, ge=1, le=1000, description="documents of the small ones")
    as_json: bool = Field(False, alias="json", description="print a machine-readable summary to stdout, last")
    quiet: bool = Field(False, description="print nothing but the summary of --json")
