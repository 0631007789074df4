"""The training loop: one pass of seeded steps, with checkpoints from which a killed run continues bit for bit."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from rankmill.errors import ModelError
from rankmill.scoring.batches import padded
from rankmill.scoring.families.classifier import Classifier
from rankmill.scoring.packing import pack
from rankmill.settings.train import TrainSettings
from rankmill.training import checkpoint
from rankmill.training.lists import TrainingList, targets
from rankmill.training.losses import combined_loss
from rankmill.training.model import forward
from rankmill.training.pairs import ListPairs
from rankmill.training.schedule import flat_until, learning_rate, length_of_step, lists_of_step
from rankmill.training.ticker import ticking
from rankmill.types import EncodedPairs

log = logging.getLogger(__name__)

_SMOOTHING = 0.98  # of the loss and the correlation in the log: about the last 50 steps
_CLIP = 1.0


@dataclass(frozen=True, slots=True)
class LoopResult:
    """What a run of the loop did."""

    steps: int
    resumed_at: int
    """Steps that an earlier process had done; 0 for a fresh run."""
    pairs: int
    """Pairs of this process."""
    tokens: int
    """Tokens of this process, padding left out."""
    seconds: float
    loss: float
    """Smoothed training loss at the end."""


def run_loop(
    model: PreTrainedModel,
    served: Classifier,
    lists: Sequence[TrainingList],
    *,
    settings: TrainSettings,
    steps: int,
    fingerprint: str,
) -> LoopResult:
    """Train `model` in place.

    Args:
        model: float32, on the device that computes.
        served: the model as the scorer sees it, for its pair format and tokens.
        lists: the training split.
        settings: how to train.
        steps: optimiser steps in all, those of earlier processes included.
        fingerprint: of everything that decides the weights; a checkpoint with another one is refused.

    Raises:
        OutputConflictError: the output folder holds another run's checkpoint.
        ModelError: the loss became NaN or infinite.
    """
    pairs_of = ListPairs(served, lists)
    wanted = [targets(item, settings.label_bonus) for item in lists]
    optimizer = _optimizer(model, settings)
    folder: Path = settings.output
    step, loss = 0, float("nan")
    torch.manual_seed(settings.seed)
    found = checkpoint.load(folder, fingerprint, steps, flat_until(steps, settings.decay))
    if found is not None:
        model.load_state_dict(found.model)
        optimizer.load_state_dict(found.optimizer)
        _set_random_state(found)
        step, loss = found.step, found.loss
        log.info("continuing at step %d of %d", step, steps)
    resumed_at, pairs, tokens = step, 0, 0
    began = saved = time.monotonic()
    with ticking("training", steps, start=step) as ticker:
        while step < steps:
            chosen = lists_of_step(step, len(lists), settings.lists_per_step, settings.seed)
            limit = length_of_step(step, settings.min_length, settings.max_length, settings.seed)
            rate = learning_rate(step, steps, settings.learning_rate, settings.warmup_steps, settings.decay)
            for group in optimizer.param_groups:
                group["lr"] = rate
            told = _train_step(
                model,
                optimizer,
                pairs_of.of(chosen, limit),
                [wanted[i] for i in chosen],
                segments=served.template.segments,
                settings=settings,
            )
            if not math.isfinite(told.loss):
                raise ModelError(
                    f"The loss became {told.loss} at step {step + 1} of {steps} (learning rate {rate:.2g}); "
                    "lower --learning-rate, or leave --bf16 out. The last checkpoint is kept."
                )
            step += 1
            pairs, tokens = pairs + told.pairs, tokens + told.tokens
            loss = told.loss if math.isnan(loss) else _SMOOTHING * loss + (1 - _SMOOTHING) * told.loss
            ticker.step(note=f"loss {loss:.4f}, {tokens / (time.monotonic() - began):,.0f} tokens/s")
            if step < steps and time.monotonic() - saved >= settings.checkpoint_seconds:
                checkpoint.save(
                    folder, _snapshot(model, optimizer, step=step, steps=steps, loss=loss, fingerprint=fingerprint)
                )
                saved = time.monotonic()
    checkpoint.save(folder, _snapshot(model, optimizer, step=step, steps=steps, loss=loss, fingerprint=fingerprint))
    return LoopResult(step, resumed_at, pairs, tokens, time.monotonic() - began, loss)


@dataclass(frozen=True, slots=True)
class _Told:
    loss: float
    pairs: int
    tokens: int


def _train_step(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    pairs: EncodedPairs,
    wanted: Sequence[Sequence[float]],
    *,
    segments: bool,
    settings: TrainSettings,
) -> _Told:
    """`pairs`: of some lists, one after the other; `wanted`: their targets, list by list."""
    model.train()
    # A list's candidates may fall into different micro-batches; their logits meet again before the loss, so that one
    # backward pass serves both losses.
    batches = pack(pairs.lengths, settings.tokens_per_batch)
    pad_id = model.config.pad_token_id or 0
    inputs = (padded(pairs, batch, pad_id=pad_id, segments=segments) for batch in batches)
    parts = torch.cat([forward(model, arrays, bf16=settings.bf16) for arrays in inputs])
    order = torch.from_numpy(np.concatenate(batches)).to(parts.device)
    logits = torch.zeros_like(parts).index_copy(0, order, parts)
    values = torch.tensor([value for values in wanted for value in values], dtype=torch.float32, device=parts.device)
    loss = combined_loss(
        logits, values, [len(values) for values in wanted],
        temperature=settings.temperature, centre=settings.centre, pointwise_weight=settings.pointwise_weight,
    )  # fmt: skip
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], _CLIP)
    optimizer.step()
    return _Told(float(loss.detach()), len(pairs), len(pairs.token_ids))


def _optimizer(model: PreTrainedModel, settings: TrainSettings) -> torch.optim.AdamW:
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},  # biases and LayerNorm
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))


def _snapshot(
    model: PreTrainedModel, optimizer: torch.optim.Optimizer, *, step: int, steps: int, loss: float, fingerprint: str
) -> checkpoint.Checkpoint:
    return checkpoint.Checkpoint(
        step=step,
        steps=steps,
        model=model.state_dict(),
        optimizer=optimizer.state_dict(),
        random_state=torch.get_rng_state(),
        device_random_state=torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        loss=loss,
        fingerprint=fingerprint,
    )


def _set_random_state(found: checkpoint.Checkpoint) -> None:
    torch.set_rng_state(found.random_state)
    if found.device_random_state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(found.device_random_state)
