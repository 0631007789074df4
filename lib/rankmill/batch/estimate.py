"""What a planned job will take: arithmetic on a plan, a sample of its tokens and the figures of `rankmill bench`."""

from dataclasses import dataclass
from pathlib import Path

import orjson
from pydantic import BaseModel, ValidationError

from rankmill.batch.sample import Sample
from rankmill.errors import UsageError
from rankmill.scoring.card import ModelCard

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class _Bare(BaseModel):
    tokens_per_second: float
    peak_bytes: int
    gpu_peak_bytes: int | None = None


class _Job(BaseModel):
    to_bare: float


class _Chosen(BaseModel):
    device: str
    precision: str


class _Machine(BaseModel):
    cpu: str = ""
    gpu: str | None = None
    threads: int
    date: str = ""


class Figures(BaseModel):
    """The part of `rankmill bench --json` that is needed here."""

    model: str
    machine: _Machine
    chosen: _Chosen
    bare: _Bare
    job: _Job | None = None

    @property
    def tokens_per_second(self) -> float:
        """Of one GPU, or of one machine without, inside a job."""
        kept = 1.0 if self.job is None else min(1.0, self.job.to_bare)  # several GPUs are no reason to expect more
        return self.bare.tokens_per_second * kept

    @property
    def peak_bytes(self) -> int:
        """Most memory while it scored: the GPU's, or the process's without one."""
        on_gpu = self.chosen.device == "cuda" and self.bare.gpu_peak_bytes is not None
        return (self.bare.gpu_peak_bytes or 0) if on_gpu else self.bare.peak_bytes

    @property
    def unit(self) -> str:
        """What the rate is of."""
        if self.chosen.device == "cuda":
            return self.machine.gpu or "GPU"
        return f"machine with {self.machine.threads} threads of {self.machine.cpu or 'an unnamed CPU'}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """Time and cost."""

    units: int
    """GPUs, or machines without."""
    unit: str
    tokens_per_second: float
    """Of one of them."""
    hours: float
    """Of work, without starting the machines and loading the model."""
    unit_hours: float
    """Of all of them together."""
    cost: float | None
    """In the currency of the price; None without one."""


def read_figures(path: str, card: ModelCard) -> Figures:
    """Read what `rankmill bench --json` printed.

    Args:
        path: a file that holds it, alone or as its last line.
        card: the model that it must be of.

    Raises:
        UsageError: it is no such file, or was measured with another model or precision.
    """
    try:
        lines = Path(path).read_bytes().strip().splitlines()
        figures = Figures.model_validate(orjson.loads(b"\n".join(lines) if lines[:1] == [b"{"] else lines[-1]))
    except OSError as error:
        raise UsageError(f"--bench {path}: {error.strerror or error}.") from error
    except (ValueError, IndexError, ValidationError) as error:
        raise UsageError(f"--bench {path} is not what `rankmill bench --json` prints.") from error
    measured, wanted = (figures.model, figures.chosen.precision), (card.model, card.precision)
    if measured != wanted:
        raise UsageError(
            f"--bench {path} was measured with the model {measured[0]} in {measured[1]}; this job uses {wanted[0]} in "
            f"{wanted[1]}. Measure that: `rankmill bench --model {wanted[0]} --precision {wanted[1]} --json`."
        )
    return figures


def estimate(sample: Sample, pairs: int, figures: Figures, units: int, price: float | None) -> Estimate:
    """Divide.

    Args:
        sample: of the input.
        pairs: of the input.
        figures: of one GPU, or machine.
        units: GPUs, or machines.
        price: of one of them for an hour.
    """
    unit_hours = sample.tokens(pairs) / figures.tokens_per_second / 3600
    return Estimate(
        units=units,
        unit=figures.unit,
        tokens_per_second=figures.tokens_per_second,
        hours=unit_hours / units,
        unit_hours=unit_hours,
        cost=None if price is None else unit_hours * price,
    )


def weight_bytes(card: ModelCard) -> int:
    """Memory of a model's weights in the precision it is computed in."""
    return card.parameters * _BYTES[card.precision]
