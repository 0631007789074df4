"""Every block of the README does what it says."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pyarrow.parquet as pq
import pytest

from rankmill.settings.load import load_settings
from rankmill.settings.rerank import RerankSettings
from tests.cluster.ray_head import running_head
from tests.conftest import S3Bucket

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?:<!-- test: (?P<how>[^>]+?) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block and how the comment above it says it is tested."""

    how: str
    language: str
    code: str


BLOCKS = [
    Block(found["how"] or "plain", found["language"], found["code"])
    for found in BLOCK.finditer((ROOT / "README.md").read_text(encoding="utf-8"))
]


def chosen(how: str) -> list[Block]:
    return [block for block in BLOCKS if block.how == how]


def run(block: Block, folder: Path, environment: dict[str, str]) -> str:
    """Run a block in `folder`; returns what it printed."""
    command = [sys.executable, "-c"] if block.language == "python" else ["bash", "-euo", "pipefail", "-c"]
    done = subprocess.run(
        [*command, block.code], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=1500
    )
    assert done.returncode == 0, f"{block.code}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def user_environment() -> dict[str, str]:
    """A user's shell: nothing of the tests' Ray, the virtual environment on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "OMP_"))}
    return kept | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


def test_every_block_is_run_by_a_test() -> None:
    tested = {"plain", "s3", "config", "slow", "slow, cluster", "slow, serve", "slow, search", "slow, after make demo"}
    skipped = {how for how in (block.how for block in BLOCKS) if how.startswith("skip, because ")}
    assert {block.how for block in BLOCKS} - skipped == tested
    assert len(skipped) == 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a reader would be: a folder with the virtual environment in it."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / ".venv").symlink_to(Path(sys.executable).parents[1])
    return folder


@pytest.mark.slow
def test_your_own_data(folder: Path) -> None:
    printed = [run(block, folder, user_environment()) for block in chosen("plain")]
    assert "'doc_id': 'reset', 'rank': 1" in printed[2]
    assert "complete" in printed[3]
    assert "Reset current HEAD" in printed[4].splitlines()[0]
    assert '"index":1,"rank":1' in printed[5]
    assert "cross-encoder" in printed[6]
    assert len(printed) == 7


@pytest.mark.slow
def test_from_s3_to_s3(folder: Path, s3: S3Bucket) -> None:
    for block in chosen("plain")[:1]:
        run(block, folder, user_environment())
    upload(folder / "candidates.parquet")
    for block in chosen("s3"):
        run(block, folder, user_environment() | s3.environment)
    assert pq.read_table("s3://bucket/rankings").num_rows == 3


def test_flags_in_a_file(tmp_path: Path) -> None:
    (block,) = chosen("config")
    (tmp_path / "job.yaml").write_text(block.code)
    settings = load_settings(RerankSettings, ["--config", str(tmp_path / "job.yaml")], "rankmill rerank")
    assert settings.input == "s3://bucket/candidates/"
    assert (settings.columns.query_id, settings.columns.text) == ("qid", "body")


@pytest.mark.slow
def test_serve_it(folder: Path) -> None:
    serve, ask = chosen("slow, serve")
    (result,) = served(serve.code, ask, folder)["results"]
    assert result["index"] == 1


@pytest.mark.slow
def test_search_then_rerank(folder: Path) -> None:
    prepare, ask = chosen("slow, search")
    *before, serve = prepare.code.strip().splitlines()
    run(Block(prepare.how, prepare.language, "\n".join(before)), folder, user_environment())
    found = served(serve, ask, folder)
    assert "purr" in json.dumps(found)
    assert "bark" not in json.dumps(found)


def served(command: str, ask: Block, folder: Path) -> Any:
    """Start a server with a port of its own, ask it as the README does, stop it; returns the answer."""
    port = free_port()
    server = subprocess.Popen(
        ["bash", "-c", f"exec {command.strip()} --port {port}"],
        cwd=folder,
        env=user_environment(),
        stdout=subprocess.PIPE,
    )
    with server:
        try:
            assert server.stdout is not None
            assert f"http://127.0.0.1:{port}" in server.stdout.readline().decode()  # said when it answers
            code = ask.code.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
            assert code != ask.code
            return json.loads(run(Block(ask.how, ask.language, code), folder, user_environment()))
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(timeout=120) == 0


@pytest.mark.slow
def test_on_a_cluster(folder: Path, s3: S3Bucket) -> None:
    for block in chosen("plain")[:1]:
        run(block, folder, user_environment())
    upload(folder / "candidates.parquet")
    with running_head(num_cpus=4, environment=s3.environment) as head:
        for block in chosen("slow, cluster"):
            code = block.code
            for shown, here in (
                ("http://localhost:8265", head.jobs),
                ("--gpus-per-worker 1 --workers 1,8", "--gpus-per-worker 0 --workers 1"),
            ):
                assert shown in code
                code = code.replace(shown, here)
            run(Block(block.how, block.language, code), ROOT, head.environment)
    assert pq.read_table("s3://bucket/from-cluster").num_rows == 3


@pytest.mark.slow
@pytest.mark.timeout(1700)
def test_the_two_commands_in_a_fresh_clone(tmp_path: Path) -> None:
    """`make demo` in a clone with a virtual environment of its own; then what the README does with its files.

    The clone is installed into it, but not what it depends on: that takes minutes, and `.ci/run` starts with it.
    """
    clone = tmp_path / "rankmill"
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    lend_dependencies(clone)
    environment = {name: value for name, value in user_environment().items() if name != "VIRTUAL_ENV"}
    shown = "".join(run(block, clone, environment) for block in chosen("slow"))
    assert "nDCG@10" in shown
    environment["PATH"] = f"{clone / '.venv' / 'bin'}{os.pathsep}{environment['PATH']}"
    compared = "".join(run(block, clone, environment) for block in chosen("slow, after make demo"))
    assert (clone / "report.html").stat().st_size > 1000
    change = re.search(r"nDCG@10\s+0\.\d+\s+0\.\d+\s+([+-]0\.\d+)", compared)
    assert change is not None
    assert float(change[1]) > 0, "the built-in model beats BM25 on the demonstration"


def lend_dependencies(clone: Path) -> None:
    """Make `.venv` as `make install` does, with the packages of this process's environment on its path."""
    venv = clone / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    lender, borrower = (sysconfig.get_path("purelib", vars={"base": str(base)}) for base in (sys.prefix, venv))
    Path(borrower, "lent.pth").write_text(f"{lender}\n")
    pip = [sys.executable, "-m", "pip", "--python", str(venv / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--editable", str(clone)], check=True)
    (venv / ".installed").touch()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def upload(path: Path) -> None:
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    client.upload_file(str(path), "bucket", "candidates/part-0.parquet")
    client.close()
