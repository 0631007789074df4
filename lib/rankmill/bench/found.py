"""What a run of `rankmill bench` found: plain values, as tables and JSON show them."""

from dataclasses import asdict, dataclass
from typing import Any

from rankmill.bench.job import Grown, Job
from rankmill.bench.latency import Latency
from rankmill.bench.machine import Machine
from rankmill.bench.measure import Agreement
from rankmill.bench.plan import Plan
from rankmill.bench.subject import Chosen


@dataclass(frozen=True, slots=True)
class Workload:
    """The pairs."""

    pairs: int
    unit: str
    """What lengths are counted in: `tokens`, or `bytes` for a scorer that does its own tokenising."""
    mean_tokens: float
    p95_tokens: float
    whole: int
    """Pairs that are neither cut nor read in chunks."""
    rounds: int


@dataclass(frozen=True, slots=True)
class Bare:
    """The bare scorer, medians over rounds."""

    pairs_per_second: float
    tokens_per_second: float
    padding_waste: float | None
    """Tokens of padding over real ones; None where batches are made elsewhere."""
    model_flops_per_second: float | None
    """What the model's formula says that real tokens cost, per second; None for a kind of model whose is not known."""
    matrix_engine: str | None
    """Which engine's matrix product is the fastest here: `torch` or `openvino`."""
    matrix_flops_per_second: float | None
    """Its rate of a large matrix product in the same precision on the same device, measured in the same rounds."""
    matrix_fraction: float | None
    """The first over the second: the median of the rounds' own ratios."""
    peak_bytes: int
    """Resident memory of the process while it scored, the model and the pairs included."""
    gpu_peak_bytes: int | None


@dataclass(frozen=True, slots=True)
class Compared:
    """One peer. Without rates where it could not be run, or computes something else than we do."""

    name: str
    precision: str | None
    pairs_per_second: float | None
    tokens_per_second: float | None
    speed_ratio: float | None
    """How many times as fast as it we are: the median of the rounds' own ratios."""
    agreement: Agreement | None
    problem: str | None
    """Why there are no rates."""


@dataclass(frozen=True, slots=True)
class Found:
    """Everything."""

    machine: Machine
    model: str
    fingerprint: str
    """Of the scorer: the model's content, its precision and every setting that changes a logit."""
    workload: Workload
    chosen: Chosen
    bare: Bare
    peers: tuple[Compared, ...]
    latency: tuple[Latency, ...]
    job: Job | None
    grown: Grown | None
    plan: Plan | None

    def as_json(self) -> dict[str, Any]:
        """JSON-able; the names of these classes' fields."""
        return asdict(self)
