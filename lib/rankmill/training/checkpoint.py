"""Checkpoints that survive a kill at any moment: one file, replaced atomically."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rankmill.errors import OutputConflictError

_NAME = "checkpoint.pt"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything that a run needs to go on as if it had never stopped."""

    step: int
    """Steps done."""
    steps: int
    """Steps that the run was going to do."""
    model: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    random_state: torch.Tensor
    """torch's CPU generator (dropout)."""
    device_random_state: list[torch.Tensor]
    """The generators of the CUDA devices; empty on a CPU."""
    loss: float
    """Smoothed training loss, for the log."""
    fingerprint: str
    """Of the settings and lists that decide the weights."""


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the folder's checkpoint; a kill leaves the old one or the new one, never half of one."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{_NAME}.{os.getpid()}"
    with partial.open("wb") as stream:
        torch.save({name: getattr(checkpoint, name) for name in Checkpoint.__slots__}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(folder / _NAME)


def load(folder: Path, fingerprint: str, steps: int, flat_until: int) -> Checkpoint | None:
    """The folder's checkpoint; None when there is none.

    Args:
        folder: where `save` wrote.
        fingerprint: of the run that wants to continue.
        steps: how many steps it is going to do; may differ from the run that wrote the checkpoint
            as long as the learning rate had not begun to fall.
        flat_until: the step at which its learning rate begins to fall.

    Raises:
        OutputConflictError: it belongs to a run with other settings or other lists, or is too far for another `steps`.
    """
    path = folder / _NAME
    if not path.is_file():
        return None
    found = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    if found.fingerprint != fingerprint:
        raise OutputConflictError(
            f"{path} was written at step {found.step} by a run with other settings or other lists; "
            "give another --output, or remove the checkpoint to start again."
        )
    if found.steps != steps and found.step > flat_until:
        raise OutputConflictError(
            f"{path} is at step {found.step} of {found.steps}; a run of {steps} steps would have begun to lower its "
            f"learning rate at step {flat_until}. Give at least {found.step} flat steps, or another --output."
        )
    return found
