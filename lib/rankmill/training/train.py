"""Training from settings to a model folder."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from rankmill.errors import InputError, UsageError
from rankmill.scoring.int8 import load_int8
from rankmill.settings.train import TrainSettings
from rankmill.training.evaluate import Figure, Scoring, evaluate_collection, evaluate_lists
from rankmill.training.lists import TrainingList, read_lists
from rankmill.training.loop import run_loop
from rankmill.training.model import freeze_word_embeddings, load_body, write_model
from rankmill.training.pairs import PairEncoder

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
    "evaluate_max_length",
    "evaluate_bf16",
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
    figures: tuple[Figure, ...]

    def as_text(self) -> str:
        """A few lines for people."""
        rate = self.tokens / self.seconds if self.seconds else 0.0
        lines = [
            f"model      {self.model}",
            f"trained    {self.steps:,} steps on {self.lists:,} lists ({self.resumed_at:,} by an earlier process)",
            f"here       {self.pairs:,} pairs, {self.tokens:,} tokens in {self.seconds:,.0f} s ({rate:,.0f} tokens/s)",
            f"loss       {self.loss:.4f}",
        ]
        lines += [figure.as_text() for figure in self.figures]
        return "\n".join(lines)

    def as_json(self) -> str:
        """One JSON object."""
        return json.dumps(asdict(self) | {"model": str(self.model)})


def train(settings: TrainSettings) -> TrainSummary:
    """Train, write `OUTPUT/model`, evaluate. The same settings again continue from the last checkpoint.

    Raises:
        InputError: the lists cannot be used.
        ModelError: the body cannot be used.
        UsageError: the device is not there.
        OutputConflictError: OUTPUT holds the checkpoint of another run.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = _device(settings.device)
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
    encoder = PairEncoder(tokenizer)
    result = run_loop(
        model,
        encoder,
        training,
        settings=settings,
        steps=steps,
        fingerprint=_fingerprint(settings, training),
        device=device,
    )
    folder = settings.output / "model"
    write_model(model, tokenizer, folder, int8=settings.int8)
    if settings.int8:
        # What is measured is what was stored, rounding included.
        model.load_state_dict(load_int8(folder / "model.safetensors"))
    figures = _figures(model, encoder, lists, settings)
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


def _figures(
    model: PreTrainedModel, encoder: PairEncoder, lists: Sequence[TrainingList], settings: TrainSettings
) -> tuple[Figure, ...]:
    how = Scoring(settings.evaluate_max_length, settings.tokens_per_batch, settings.evaluate_bf16)
    held_out = [item for item in lists if item.split == "dev" and any(candidate.label for candidate in item.candidates)]
    figures = [evaluate_lists(model, encoder, held_out, how)] if held_out else []
    for collection in settings.evaluate:
        figures.append(evaluate_collection(model, encoder, collection, how)[0])
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
