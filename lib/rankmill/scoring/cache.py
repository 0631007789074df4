"""Where this machine keeps what it worked out once: converted models, measured batch sizes."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$RANKMILL_CACHE`, else `rankmill` below `$XDG_CACHE_HOME` or `~/.cache`. May not exist yet."""
    chosen = os.environ.get("RANKMILL_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rankmill"
