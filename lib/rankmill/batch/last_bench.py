"""The last result of `rankmill bench`, one for each scorer and kind of device, in the cache of this user."""

import hashlib
import logging
import os
import uuid
from pathlib import Path

from pydantic import ValidationError

from rankmill.batch.estimate import Figures
from rankmill.batch.machine import cpu_name
from rankmill.scoring.cache import cache_folder
from rankmill.scoring.engines.choose import this_machine
from rankmill.scoring.options import ScorerOptions

_log = logging.getLogger("rankmill")


def keep(fingerprint: str, device: str, body: bytes) -> None:
    """Write a result down in the place of the one before; a cache that cannot be written is no reason to fail.

    Args:
        fingerprint: of the scorer; with its precision.
        device: `cuda` or `cpu`.
        body: what `rankmill bench --json` prints.
    """
    path = _path(fingerprint, device)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(body)
        os.replace(part, path)  # noqa: PTH105 - whoever reads sees one result or the other
    except OSError as error:
        _log.warning("the result is not kept for `rankmill plan`: %s", error)


def recall(fingerprint: str, options: ScorerOptions) -> Figures | None:
    """The last result for a scorer on the device it will use; None without one, or where it is of another CPU.

    Args:
        fingerprint: of the scorer.
        options: of the scorer; `auto` stands for the device of this machine.
    """
    device = options.device
    if device == "auto":
        device = "cuda" if this_machine().gpus else "cpu"
    try:
        figures = Figures.model_validate_json(_path(fingerprint, device).read_bytes())
    except (OSError, ValidationError):
        return None
    return None if device == "cpu" and figures.machine.cpu != cpu_name() else figures


def _path(fingerprint: str, device: str) -> Path:
    key = hashlib.sha256(f"{fingerprint} {device}".encode()).hexdigest()[:16]
    return cache_folder() / "bench" / f"{key}.json"
