"""What the wheel holds: our package, whole, and nothing else."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=120,
        env={**os.environ, "PIP_NO_INDEX": "1"},
    )
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_it_holds_the_package_and_nothing_else(wheel_names: list[str]) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {PurePosixPath(name).parts[0] for name in wheel_names} == {"rankmill", f"rankmill-{version}.dist-info"}
    assert not [name for name in wheel_names if "__pycache__" in name or name.endswith(".pyc")]


def test_it_holds_every_file_of_the_package(wheel_names: list[str]) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "lib/rankmill"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\n")
    expected = {path.removeprefix("lib/") for path in tracked if path and (ROOT / path).exists()}
    assert expected, "git lists no files of the package"
    assert expected <= set(wheel_names)
    assert "rankmill/py.typed" in expected


def test_the_license_travels_with_it(wheel_names: list[str]) -> None:
    assert [name for name in wheel_names if name.endswith(".dist-info/licenses/LICENSE")]
