"""What figures depend on, beside the model and the pairs."""

import importlib.metadata
import platform
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from rankmill import __version__
from rankmill.batch.machine import cpu_name

_LIBRARIES = ("torch", "transformers", "tokenizers", "ray", "pyarrow")
_OPTIONAL = ("openvino", "onnxruntime", "sentence-transformers")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and when something was measured."""

    date: str
    system: str
    cpu: str
    """As the processor calls itself; empty where the system does not say."""
    gpu: str | None
    """As the driver calls it, the first one; None without."""
    threads: int
    """Of the CPU, for every side."""
    versions: dict[str, str]


def this_machine(threads: int) -> Machine:
    """Look."""
    return Machine(
        date=datetime.now(UTC).date().isoformat(),
        system=platform.platform(),
        cpu=cpu_name(),
        gpu=torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        threads=threads,
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Releases that the figures depend on."""
    found = {"rankmill": __version__}  # on a cluster we are not installed
    found |= {name: importlib.metadata.version(name) for name in _LIBRARIES}
    for name in _OPTIONAL:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
