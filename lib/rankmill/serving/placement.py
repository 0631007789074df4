"""What a replica of a model holds of its machine. Pure policy."""

from dataclasses import dataclass
from typing import TypeVar

from rankmill.settings.serve import EndpointSettings, ModelSettings

GATEWAY_CPUS = 1.0
RETRIEVER_CPUS = 1.0

S = TypeVar("S", bound=EndpointSettings)


@dataclass(frozen=True, slots=True)
class Placement:
    """Of one replica."""

    cpus: float
    gpus: float
    device: str
    """`cuda` or `cpu`."""
    threads: int | None
    """Of its forward pass; None with a GPU."""


def place(model: ModelSettings, *, gpus: int) -> Placement:
    """Decide for one model.

    Args:
        model: what was asked for.
        gpus: of the machine, in case nothing was.
    """
    share = float(gpus > 0) if model.gpus_per_replica is None else model.gpus_per_replica
    if share > 0:
        return Placement(cpus=1.0, gpus=share, device="cuda", threads=None)
    threads = model.threads or 1
    return Placement(cpus=float(threads), gpus=0.0, device="cpu", threads=threads)


def cpus_needed(settings: EndpointSettings, *, gpus: int) -> float:
    """CPUs that all processes reserve together when all of them run, and a replica of a new version beside them."""
    of_each = [place(model, gpus=gpus).cpus for model in settings.served]
    scorers = sum(model.replicas[1] * cpus for model, cpus in zip(settings.served, of_each, strict=True))
    searching = 0.0 if settings.index is None else settings.index_replicas * RETRIEVER_CPUS
    surge = max(*of_each, GATEWAY_CPUS) if settings.surge_percent else 0.0
    return settings.gateways * GATEWAY_CPUS + searching + scorers + surge


def share_cores(settings: S, *, cores: int, gpus: int) -> S:
    """Give every replica without a GPU, where its threads were left open, an equal share of a machine's cores."""
    replicas = sum(model.replicas[1] for model in settings.served if place(model, gpus=gpus).device == "cpu")
    share = max(1, cores // max(1, replicas))
    if settings.models:
        models = tuple(model.model_copy(update={"threads": model.threads or share}) for model in settings.models)
        return settings.model_copy(update={"models": models})
    return settings.model_copy(update={"threads": settings.threads or share})
