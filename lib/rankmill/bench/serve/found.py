"""What a run of `rankmill bench --serve` found: plain values, as tables and JSON show them."""

from dataclasses import asdict, dataclass
from typing import Any

from rankmill.bench.machine import Machine


@dataclass(frozen=True, slots=True)
class Overhead:
    """One request at a time, over HTTP and in this process, in turn; milliseconds, medians."""

    model: str
    requests: int
    """That each side answered."""
    tokens: float
    """Of a request, on average."""
    bare_ms: float
    served_ms: float
    overhead_ms: float
    """The median of what each request took longer than the same one here."""
    prepare_ms: float
    """Of it, the gateway's parsing and tokenising, less tokenising here; as the next two, a median of its own."""
    score_ms: float
    """The hop to the scorer, its queue and forward pass, less the forward pass here."""
    rest_ms: float
    """HTTP both ways, reading and rendering."""
    spread_ms: float
    """How far the middle half of the differences lie apart."""
    logit_difference: float
    """The largest between both sides."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """Many requests at a time; medians over rounds."""

    concurrency: int
    requests: int
    pairs: int
    """Of all requests of a round."""
    bare_pairs_per_second: float
    served_pairs_per_second: float
    to_bare: float
    """The second over the first: the median of the rounds' own ratios."""


@dataclass(frozen=True, slots=True)
class Passing:
    """A small request while a large one is being scored; medians over rounds."""

    small: int
    """Documents."""
    large: int
    large_ms: float
    """Of the large request alone, warm."""
    idle_ms: float
    during_ms: float | None
    """None where the large request was over before a small one was."""
    ratio: float | None
    """The second over the first: the median of the rounds' own."""
    requests: int
    """Small ones that were timed during a large one."""


@dataclass(frozen=True, slots=True)
class Rival:
    """Another server; without figures where it could not be run, or computes something else."""

    name: str
    p50_ms: float | None
    """Of the requests of `Overhead`, one at a time."""
    pairs_per_second: float | None
    """Of the requests of `Throughput`."""
    latency_ratio: float | None
    """How many times as long as ours it takes: the median of the rounds' own."""
    speed_ratio: float | None
    """How many times its pairs per second ours are."""
    logit_difference: float | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class ServeFound:
    """Everything."""

    machine: Machine
    model: str
    engine: str
    precision: str
    rounds: int
    mean_tokens: float
    """Of the pairs of `throughput`."""
    documents: int
    document_bytes: int
    overhead: Overhead
    """With the model that was asked for."""
    light: Overhead
    """With next to no network: the overhead itself."""
    throughput: Throughput
    passing: Passing
    rivals: tuple[Rival, ...]

    def as_json(self) -> dict[str, Any]:
        """JSON-able; the names of these classes' fields."""
        return asdict(self)
