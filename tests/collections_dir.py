"""Where the real test collections are, if they are anywhere."""

import os
from pathlib import Path

import pytest


def find_collections() -> Path | None:
    """The folder of `$RANKMILL_COLLECTIONS`, else `../shared/data` beside the repository; None where there is none."""
    named = os.environ.get("RANKMILL_COLLECTIONS")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


def collections_or_skip() -> Path:
    """The same; skips the test where there is none."""
    folder = find_collections()
    if folder is None:
        pytest.skip("needs the test collections: set RANKMILL_COLLECTIONS to their folder")
    return folder
