"""What must start at once does not load what takes seconds."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[2] / "lib"
HEAVY = ("torch", "transformers", "ray")

PRINT_HEAVY = f"import sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"


def heavy_after(script: str) -> list[str]:
    finished = subprocess.run(
        [sys.executable, "-c", f"{script}\n{PRINT_HEAVY}"],
        env={"PYTHONPATH": str(LIBRARY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.splitlines()[-1].split()


@pytest.mark.parametrize("module", ["types", "errors", "settings", "cluster"])
def test_the_bottom_layers_import_nothing_heavy(module: str) -> None:
    package = LIBRARY / "rankmill" / module
    modules = [f"rankmill.{module}", *(f"rankmill.{module}.{path.stem}" for path in package.glob("[!_]*.py"))]
    assert heavy_after("import " + ", ".join(modules)) == []


@pytest.mark.parametrize("arguments", [["--help"], ["rerank", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    project = tomllib.loads((LIBRARY.parent / "pyproject.toml").read_text())["project"]
    module, _, function = project["scripts"]["rankmill"].partition(":")
    script = f"""
from {module} import {function} as main
try:
    code = main({arguments!r})
except SystemExit as ended:
    code = ended.code
assert not code, code
"""
    assert heavy_after(script) == []


def test_this_test_notices() -> None:
    assert heavy_after("import ray") == ["ray"]
