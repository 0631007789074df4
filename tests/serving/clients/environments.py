"""Virtual environments for other people's packages, made once for each set of exact pins."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FOLDER = HERE.parents[2] / ".venvs"
"""Ignored by git."""


def environment(name: str, *, at_least: tuple[int, int] = (3, 11)) -> Path:
    """The interpreter of the environment that `requirements/NAME.txt` describes.

    The pins were made with `uv pip compile --universal --python-version 3.11 NAME.in -o NAME.txt`.

    Args:
        name: of the requirements.
        at_least: the Python that its packages need; skips the test where there is none.
    """
    pins = HERE / "requirements" / f"{name}.txt"
    python = _python(at_least)
    content = f"{python} {pins.read_text()}"
    folder = FOLDER / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    if not (folder / "complete").exists():
        for old in FOLDER.glob(f"{name}-*"):
            shutil.rmtree(old)
        _uv("venv", "--python", python, folder)
        _uv("pip", "install", "--python", folder, "--requirement", pins)
        (folder / "complete").touch()
    return folder / "bin" / "python"


def _python(at_least: tuple[int, int]) -> str:
    if sys.version_info[:2] >= at_least:
        return sys.executable
    names = [f"python3.{minor}" for minor in range(at_least[1], at_least[1] + 3)]
    there = [path for name in names if (path := shutil.which(name)) and _runs(path)]
    pyenv = [str(path) for name in names for path in Path.home().glob(f".pyenv/versions/*/bin/{name}")]
    if not there + pyenv:
        pytest.skip(f"there is no Python {'.'.join(map(str, at_least))} or later on this machine")
    return (there + pyenv)[0]


def _runs(path: str) -> bool:
    """Shims of pyenv are found on the path even where the version is not active."""
    return subprocess.run([path, "-c", ""], check=False, capture_output=True).returncode == 0


def _uv(*arguments: str | Path) -> None:
    command = [Path(sys.executable).parent / "uv", *arguments, "--quiet"]
    settings = os.environ | {"UV_SYSTEM_CERTS": "true"}  # machines behind a proxy have its certificate there
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=settings)
    if done.returncode:
        pytest.skip(f"packages cannot be installed: {' '.join(done.stderr.split())[-300:]}")
