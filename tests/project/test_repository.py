"""Habits of the repository that no linter checks."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import rankmill

ROOT = Path(__file__).parents[2]

TOP_LEVEL = {
    ".ci", ".gitignore", "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "cluster.yaml", "constraints.txt",
    "jobs", "lib", "pyproject.toml", "serve", "tests",
}  # fmt: skip

# Folders of somebody's machine; the names are split so that this file does not match itself.
A_MACHINE = re.compile(
    r"(?<![\w.:/-])/(?:" + "|".join(["ho" + "me", "Us" + "ers", "ro" + "ot", "wo" + "rk"]) + r")/[\w.-]+"
)
IMAGE_PATHS = ("/ho" + "me/ray/",)
"""Paths inside the Ray image, which are the same for everybody."""


def tracked_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [path for path in listed.split("\0") if path and (ROOT / path).is_file()]


def test_the_top_level_holds_only_what_belongs_there() -> None:
    assert {path.split("/")[0] for path in tracked_files()} <= TOP_LEVEL


def test_gitignore_does_not_hide_the_library() -> None:
    lines = (ROOT / ".gitignore").read_text().splitlines()
    assert not [line for line in lines if line.strip("/! ") in {"lib", "lib64", "jobs", "serve", "models", "data"}]
    ignored = subprocess.run(
        ["git", "check-ignore", "lib/rankmill/x.py", "jobs/x.py", "serve/x.py"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert ignored.stdout == b""


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    found = []
    for path in tracked_files():
        try:
            text = (ROOT / path).read_text()
        except UnicodeDecodeError:
            continue  # weights
        found += [f"{path}: {name}" for name in machine_paths(text)]
    assert found == []


def machine_paths(text: str) -> list[str]:
    matches = (match.group() for match in A_MACHINE.finditer(text))
    return [match for match in matches if not f"{match}/".startswith(IMAGE_PATHS)]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("open('/ho" + "me/ann/data')", 1),
        ("cd /wo" + "rk/main && ls", 1),
        ("s3://bucket/ho" + "me/ann, a relative/ro" + "ot/x, /ho" + "me/ray/rankmill", 0),
    ],
)
def test_the_pattern_finds_machines_and_only_machines(text: str, count: int) -> None:
    assert len(machine_paths(text)) == count


def test_every_ruff_exception_has_its_reason_beside_it() -> None:
    """Each rule in `ignore` and `per-file-ignores` is followed by a comment on its own line."""
    text = (ROOT / "pyproject.toml").read_text()
    lint = text[text.index("[tool.ruff.lint]") : text.index("[tool.ruff.lint.pydocstyle]")]
    entries = [line for line in lint.splitlines() if re.search(r'"[A-Z]+\d*"', line) and not line.startswith("select")]
    assert len(entries) > 10
    assert [line for line in entries if not re.search(r"#\s*\w+", line)] == []


def test_every_other_exception_has_its_reason() -> None:
    """Each pytest filter has a comment above it, each mypy override one beside it."""
    text = (ROOT / "pyproject.toml").read_text()
    lines = text.splitlines()
    filters = [i for i, line in enumerate(lines) if re.match(r'\s+"(ignore|default):', line)]
    assert [lines[i] for i in filters if not lines[i - 1].strip().startswith("#")] == []
    overrides = [line for line in lines if re.match(r"(ignore_missing_imports|disable_error_code)", line)]
    assert [line for line in overrides if "#" not in line] == []


def test_the_version_is_said_once_more_and_alike() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == rankmill.__version__
