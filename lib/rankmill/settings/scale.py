"""Settings of `jobs/scale.py`: what the machinery around a scorer costs, measured without a model."""

from pydantic import Field

from rankmill.settings.load import CommandSettings


class ScaleSettings(CommandSettings):
    """What all measurements have in common."""

    as_json: bool = Field(False, alias="json", description="print a machine-readable summary to stdout, last")
    quiet: bool = Field(False, description="print nothing but the summary of --json")


class FootersSettings(ScaleSettings):
    """Measure how fast many Parquet files are looked at, from an S3 server on loopback.

    Footers is what `rankmill plan` and every job do first: list the input, read and compare the footers. Cut is what
    comes next: the ids of all queries are read and the shards are cut; a job does that on all machines of its cluster,
    here it is one process. Both are done for a tenth of the files and for all of them, for the memory to be compared.
    """

    files: int = Field(10_000, ge=10, description="Parquet files; each has ids of its own")
    row_groups: int = Field(100, ge=1, description="row groups of each file, of two small rows each")


class CommitSettings(ScaleSettings):
    """Measure what committing costs a job, in a local folder and on S3, beside scoring that takes a known time."""

    shards: int = Field(16, ge=1, description="shards of the job; the last row of each is rejected")
    pairs: int = Field(2500, ge=10, description="pairs per shard")
    seconds: float = Field(2.5, gt=0, description="how long the scorer sleeps over a shard")
    endpoint: str | None = Field(
        None, description="S3 server to use, with the keys of the environment (default: one of our own on loopback)"
    )
    bucket: str = Field("scale", description="a bucket that is there")


class WorkersSettings(ScaleSettings):
    """Measure how busy many scoring workers are kept: they sleep, and everything around them is what a job does.

    A worker is a thread of an actor here, because 256 processes do not fit into one machine.
    """

    workers: int = Field(64, ge=1, description="scoring workers")
    workers_per_actor: int = Field(8, ge=1, description="how many of them share an actor")
    seconds: float = Field(2.5, gt=0, description="how long a worker sleeps over a shard")
    shards_per_worker: int = Field(20, ge=3, description="how many shards each gets on average")
    pairs: int = Field(256, ge=1, description="pairs per shard")


class ResumeSettings(ScaleSettings):
    """Measure how soon a job goes on scoring that has many committed shards and one that is not.

    In a local folder and on an S3 server on loopback. Python's and Ray's start do not count; the start of the scoring
    worker does.
    """

    shards: int = Field(10_000, ge=2, description="shards of the job")
    pairs: int = Field(4, ge=1, description="pairs per shard")


class EndpointSettings(ScaleSettings):
    """Measure what Ray Serve and HAProxy take for a request on which nothing is done, in the shape of our endpoint.

    A gateway reads a body of as many bytes as the documents have, sends as many bytes as their tokens have to another
    deployment, and answers with as many as their results have.
    """

    requests: int = Field(200, ge=1, description="requests that are timed, one after the other")
    documents: int = Field(100, ge=1, description="of a request")
    document_bytes: int = Field(2000, ge=1, description="of a document")
    tokens: int = Field(500, ge=1, description="of a pair, two bytes each")
