"""From what `--model` says to a folder on this machine."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rankmill.errors import ModelError, UsageError
from rankmill.scoring import hub
from rankmill.scoring.options import ScorerOptions

BUILTIN = "builtin"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_CHOICES = "Give --model builtin, a local folder, or a hub id such as cross-encoder/ms-marco-MiniLM-L6-v2."


@dataclass(frozen=True, slots=True)
class Location:
    """Where a model's files are."""

    name: str
    """`builtin`, the hub id, or the folder as it was given."""
    folder: Path
    revision: str | None
    """Commit hash of a hub id; None for `builtin` and folders."""


def locate(options: ScorerOptions, check: Callable[[str, Path], object]) -> Location:
    """Find the model's folder; a hub id is fetched into the hub's cache (weights last, after its config was read).

    An existing folder wins over a hub id of the same name.

    Args:
        options: which model.
        check: called with the model's name and a folder that holds its small files, before gigabytes of weights are
            fetched; raises for a model that they rule out.

    Raises:
        ModelError: no such folder, not a model's name, or a hub id that cannot be fetched.
        UsageError: a revision of something that has none.
    """
    name = options.model
    folder = Path(name).expanduser()
    if options.revision is not None and (name == BUILTIN or folder.is_dir()):
        raise UsageError(
            f"--revision {options.revision!r} was given with --model {name!r}, which has none: only hub ids do."
        )
    if name == BUILTIN:
        folder = Path(__file__).parent / "builtin"
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"This installation lacks the built-in model ({folder} is missing or incomplete). Install rankmill "
                "again, or give --model a folder or a hub id."
            )
        return Location(name, folder, None)
    if "://" in name:
        raise ModelError(f"The model {name!r} is no http or https address, and others cannot be asked. {_CHOICES}")
    if folder.is_dir():
        return Location(name, folder.resolve(), None)
    if folder.exists():
        raise ModelError(f"The model {name!r} is a file; give the folder that holds config.json and model.safetensors.")
    if _HUB_ID.fullmatch(name) and not name.startswith("."):
        snapshot = hub.fetch(name, options.revision, check=lambda found: check(name, found))
        return Location(name, snapshot.folder, snapshot.commit)
    raise ModelError(f"There is no model folder {name!r}, and it is not a hub id (owner/name) either. {_CHOICES}")
