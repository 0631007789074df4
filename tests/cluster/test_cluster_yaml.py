"""cluster.yaml and jobs/runtime_env.yaml: what Ray itself says of them, and what we promise about them."""

import re
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._private.runtime_env.packaging import create_package
from ray._private.runtime_env.validation import parse_and_validate_env_vars, parse_and_validate_excludes
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
LIMIT_BYTES = 100_000_000  # the job server refuses larger working directories


@pytest.fixture
def config() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return loaded


@pytest.fixture
def runtime_env() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "jobs" / "runtime_env.yaml").read_text())
    return loaded


def start_commands(config: dict[str, Any]) -> list[str]:
    lists = (config["head_start_ray_commands"], config["worker_start_ray_commands"])
    return [command for commands in lists for command in commands if "ray start" in command]


def test_rays_own_validator_accepts_it(config: dict[str, Any]) -> None:
    validate_config(prepare_config(config))


def test_rays_own_validator_notices_a_misspelled_key(config: dict[str, Any]) -> None:
    config["available_node_types"]["gpu_spot"]["max_worker"] = 9
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config(config))


def test_the_image_has_the_ray_that_is_pinned(config: dict[str, Any]) -> None:
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    image = re.fullmatch(r"rayproject/ray:([\d.]+)-py(\d)(\d+)-\w+", config["docker"]["image"])
    assert image
    assert image.group(1) == pinned.group(1)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f">={image.group(2)}.{image.group(3)}" == project["requires-python"]


def test_it_installs_exactly_our_dependencies_at_our_pins(config: dict[str, Any]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=!~]", dependency)[0] for dependency in project["dependencies"]}
    (command,) = config["setup_commands"]
    options, installed = command.split("/home/ray/rankmill/constraints.txt")
    assert options.split() == ["pip", "install", "--no-cache-dir", "--constraint"]
    assert {name.strip("'") for name in installed.split()} == names
    assert config["file_mounts"]["/home/ray/rankmill/constraints.txt"] == "./constraints.txt"


def test_every_node_asks_for_the_token_and_imports_the_uploaded_copy(config: dict[str, Any]) -> None:
    commands = start_commands(config)
    assert len(commands) == 2
    for command in commands:
        assert "RAY_AUTH_MODE=token PYTHONPATH=lib ray start" in command
    assert "/home/ray/.ray/auth_token" in config["file_mounts"]
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]


def test_the_dashboard_listens_on_loopback_only(config: dict[str, Any]) -> None:
    head, _ = start_commands(config)
    assert "--head" in head
    assert re.findall(r"--dashboard-host=(\S+)", head) == ["127.0.0.1"]
    assert "0.0.0.0" not in (ROOT / "cluster.yaml").read_text()  # noqa: S104  the text, not an address to bind


def test_ray_stop_runs_only_before_a_start(config: dict[str, Any]) -> None:
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert config[name][0] == "ray stop"
        assert len(config[name]) == 2
    others = [command for name, commands in config.items() if name.endswith("setup_commands") for command in commands]
    assert not any("ray stop" in command for command in others)


def test_the_head_keeps_tasks_off_and_the_workers_are_spot_from_zero(config: dict[str, Any]) -> None:
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0}
    assert types["gpu_spot"]["min_workers"] == 0
    assert types["gpu_spot"]["max_workers"] == config["max_workers"]
    assert types["gpu_spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_the_command_in_its_header_tells_the_job_what_is_still_to_come(config: dict[str, Any]) -> None:
    assert f"--gpus-per-worker 1 --workers 1,{config['max_workers']} " in (ROOT / "cluster.yaml").read_text()


def test_ray_accepts_the_runtime_environment(runtime_env: dict[str, Any]) -> None:
    assert set(runtime_env) == {"env_vars", "excludes"}
    assert parse_and_validate_env_vars(runtime_env["env_vars"]) == {"PYTHONPATH": "lib"}
    assert parse_and_validate_excludes(runtime_env["excludes"])


def test_what_a_submitted_job_uploads(runtime_env: dict[str, Any], tmp_path: Path) -> None:
    package = tmp_path / "package.zip"
    create_package(str(ROOT), package, include_gitignore=True, excludes=runtime_env["excludes"])
    names = zipfile.ZipFile(package).namelist()
    assert "lib/rankmill/__init__.py" in names
    assert "jobs/runtime_env.yaml" in names
    unwanted = (".git/", ".venv/", "tests/", ".mypy_cache/", "dist/")
    assert not [name for name in names if name.startswith(unwanted) or "__pycache__" in name]
    assert package.stat().st_size < LIMIT_BYTES
