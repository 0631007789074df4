"""Settings of `rankmill bench`."""

import re
from decimal import Decimal
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from rankmill.settings.scorer import ScorerSettings

_COUNT = re.compile(r"([0-9]+(?:[.][0-9]+)?)([kMB]?)")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9}


def parse_count(value: Any) -> Any:
    """Read a number of things as people write it: `100M` is 100,000,000; also `2.5B`, `800k`, `1,000,000`."""
    if not isinstance(value, str):
        return value
    matched = _COUNT.fullmatch(value.strip().replace(",", "").replace("_", ""))
    if matched is None:
        raise ValueError("give a number, such as 1000000, 800k, 100M or 2.5B")
    return int(Decimal(matched[1]) * _UNITS[matched[2]])


class BenchSettings(ScorerSettings):
    """Measure this machine: the bare scorer, other libraries beside it, single requests, and the whole job.

    `rankmill bench --serve` measures the endpoint instead, and has flags of its own.

    The bare scorer tokenises and scores in one process with every core. The job is `rankmill rerank`, started as a
    process of its own: reading, tokenising, Ray Data, scoring, ranking, writing and committing; the start of its
    workers counts, the start of Ray does not. All sides score the same pairs in turn, round after round; medians are
    shown, and of ratios the median of the rounds' own. A peer's logits are compared with ours, and one that computes
    something else is shown as wrong, without a rate. The fraction of the matrix rate is what the model's formula says
    that the real tokens cost, over a large matrix product in the same precision through the fastest engine at hand.
    """

    input: str | None = Field(None, description="candidates to measure with (default: those of `rankmill demo`)")
    pairs: int = Field(2000, ge=1, description="use the first N pairs, rounded up to whole queries")
    all_pairs: bool = Field(False, description="use every pair of the input")
    rounds: int = Field(3, ge=1, description="rounds; medians of paired ratios are shown")
    threads: int | None = Field(
        None, ge=1, description="CPU threads of the bare scorer and its peers (default: all cores; not of the job)"
    )
    against: str = Field(
        "",
        description="peers, with commas: sentence-transformers, transformers, onnxruntime, torch, openvino, raw (our "
        "engine on ready-made batches); each maybe with a precision, as in torch:bfloat16",
    )
    latency: bool = Field(True, description="time single requests of 1, 10, 50, 100 and 200 candidates")
    latency_seconds: float = Field(
        3.0, gt=0, description="about so long for each size; at least 3 requests, none where they take 4 times as long"
    )
    job: bool = Field(True, description="measure the whole job as well")
    workers: int | None = Field(None, ge=1, description="scoring workers of the job (default: by machine)")
    grow: int | None = Field(None, ge=2, description="also run the job on N times the pairs and compare its memory")
    plan_pairs: Annotated[int, Field(ge=1), BeforeValidator(parse_count)] | None = Field(
        None, description="say how many machines, or GPUs, like this one score so many pairs in time, such as 100M"
    )
    plan_hours: float = Field(24.0, gt=0, description="the time there is for --plan-pairs")
    price_per_hour: float | None = Field(
        None, ge=0, description="of one machine, or GPU: --plan-pairs says what they cost"
    )
    as_json: bool = Field(False, alias="json", description="print a machine-readable summary to stdout, last")
    quiet: bool = Field(False, description="print nothing but the summary of --json")

    @model_validator(mode="after")
    def _flags_that_belong_together(self) -> Self:
        if self.grow is not None and not self.job:
            raise ValueError("--grow measures the job's memory; leave out --no-job.")
        if self.price_per_hour is not None and self.plan_pairs is None:
            raise ValueError("--price-per-hour needs --plan-pairs.")
        return self
