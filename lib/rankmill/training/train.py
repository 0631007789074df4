"""Training from settings to a model folder."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from rankmill.errors import InputError, UsageError
from rankmill.scoring.load import load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.settings.train import TrainSettings
from rankmill.training.collections import first_stage_run
from rankmill.training.lists import TrainingList, read_lists
from rankmill.training.loop import run_loop
from rankmill.training.measure import Gain, has_relevant, measure_collection, measure_lists
from rankmill.training.model import freeze_word_embeddings, load_body, served, write_model

log = logging.getLogger(__name__)

# What may differ between the run that wrote a checkpoint and the one that continues it: nothing that decides weights.
# `input` is left out because the lists themselves are hashed, `steps` because the checkpoint looks at it.
_FREE = {
    "input",
    "steps",
    "output",
    "threads",
    "checkpoint_seconds",
    "int8",
    "evaluate",
    "as_json",
    "device",
}


@dataclass(frozen=True, slots=True)
class TrainSummary:
    """What a training run did."""

    model: Path
    """Folder of the trained model."""
    lists: int
    steps: int
    resumed_at: int
    pairs: int
    """Pairs that this process trained on."""
    tokens: int
    seconds: float
    loss: float
    """Smoothed training loss at the end."""
    figures: tuple[Gain, ...]

    def as_text(self) -> str:
        """A few lines for people."""
        rate = self.tokens / self.seconds if self.seconds else 0.0
        lines = [
            f"model      {self.model}",
            f"trained    {self.steps:,} steps on {self.lists:,} lists ({self.resumed_at:,} by an earlier process)",
            f"here       {self.pairs:,} pairs, {self.tokens:,} tokens in {self.seconds:,.0f} s ({rate:,.0f} tokens/s)",
            f"loss       {self.loss:.4f}",
        ]
        lines += [f"nDCG@10    {figure.as_text()}" for figure in self.figures]
        return "\n".join(lines)

    def as_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self) | {"model": str(self.model)})


def train(settings: TrainSettings) -> TrainSummary:
    """Train, write `OUTPUT/model`, evaluate. The same settings again continue from the last checkpoint.

    Raises:
        InputError: the lists or a collection cannot be used.
        ModelError: the body cannot be used.
        UsageError: the device is not there, or the model cannot read pairs of the length asked for.
        OutputConflictError: OUTPUT holds the checkpoint of another run.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = _device(settings.device)
    for folder in settings.evaluate:
        first_stage_run(folder)  # a wrong path is better said now than after hours of training
    lists = read_lists(settings.input)
    training = [item for item in lists if item.split == "train"]
    if not training:
        raise InputError(f"None of the {len(lists)} lists is in split 'train'; there is nothing to train on.")
    steps = settings.steps or -(-len(training) // settings.lists_per_step)
    log.info("%d training lists, %d steps on %s", len(training), steps, device)
    model, tokenizer = load_body(settings.body, dropout=settings.dropout, seed=settings.seed)
    if settings.freeze_embeddings:
        freeze_word_embeddings(model)
    nn.Module.to(model, device)  # transformers wraps `to` in a way that type checkers cannot follow
    result = run_loop(
        model,
        served(model, tokenizer, settings.max_length),
        training,
        settings=settings,
        steps=steps,
        fingerprint=_fingerprint(settings, training),
    )
    folder = settings.output / "model"
    write_model(model, tokenizer, folder, int8=settings.int8)
    figures = _figures(folder, lists, settings)
    return TrainSummary(
        folder,
        len(training),
        result.steps,
        result.resumed_at,
        result.pairs,
        result.tokens,
        result.seconds,
        result.loss,
        figures,
    )


def _figures(model: Path, lists: Sequence[TrainingList], settings: TrainSettings) -> tuple[Gain, ...]:
    """Of what was stored, rounding included, in float32 on every device."""
    held_out = [item for item in lists if item.split == "dev" and has_relevant(item)]
    if not (held_out or settings.evaluate):
        return ()
    scorer = load_scorer(
        ScorerOptions(model=str(model), device=settings.device, precision="float32", threads=settings.threads)
    )
    figures = [measure_lists(scorer, held_out)] if held_out else []
    for collection in settings.evaluate:
        figures.append(measure_collection(scorer, collection))
        log.info(figures[-1].as_text())
    return tuple(figures)


def _device(wanted: str) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: this machine (or this build of torch) has no CUDA device; use --device auto.")
    return torch.device(wanted)


def _fingerprint(settings: TrainSettings, lists: Sequence[TrainingList]) -> str:
    digest = hashlib.sha256(settings.model_dump_json(exclude=_FREE).encode())
    for item in lists:
        digest.update(repr((item.query, [(c.text, c.label, c.teacher) for c in item.candidates])).encode())
    return digest.hexdigest()
