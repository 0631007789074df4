"""`ray job submit` to a real head node with a token, whose image holds an older wheel of rankmill."""

import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cluster.processes import listening_addresses, pids_with
from tests.cluster.ray_head import Head, running_head
from tests.tiny_models import save_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
RUNTIME_ENV = ("--runtime-env", "jobs/runtime_env.yaml")
OLD_VERSION = "0.0.9"

DESCRIBE = """
from rankmill import cluster

with cluster.connect() as info:
    print("JOINED", info.source.version, info.source.path, info.local, info.cpus, info.address)
"""


ASK_TOO_MUCH = """
import time
from rankmill import cluster

for _ in range(20):  # the head's monitor reports every 5 seconds
    with cluster.connect() as info:
        if not info.elastic:
            cluster.require_resources(info, workers=4, cpus_per_worker=1, gpus_per_worker=0)
    time.sleep(2)
"""


def copy_of_repository(folder: Path) -> Path:
    """The files that matter to a job, without what people keep beside them: tests, caches, large weights."""
    ignore = shutil.ignore_patterns("__pycache__", "*.safetensors")
    for name in ("lib", "jobs"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    for name in (".gitignore", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages that holds a wheel of an older rankmill."""
    tree = copy_of_repository(tmp_path_factory.mktemp("old") / "tree")
    for name in ("pyproject.toml", "lib/rankmill/__init__.py"):
        text = (tree / name).read_text()
        (tree / name).write_text(re.sub(r'(version(?:__)? = )"\d+\.\d+\.\d+"', rf'\g<1>"{OLD_VERSION}"', text, count=1))
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tree.parent), str(tree)],
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = tree.parent.glob(f"rankmill-{OLD_VERSION}-*.whl")
    installed = tmp_path_factory.mktemp("image")
    zipfile.ZipFile(wheel).extractall(installed)
    return installed


@pytest.fixture(scope="module")
def head(image: Path) -> Iterator[Head]:
    with running_head(num_cpus=4, environment={"PYTHONPATH": str(image)}) as running:
        yield running


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the user submits from."""
    folder = copy_of_repository(tmp_path_factory.mktemp("user") / "checkout")
    (folder / "describe.py").write_text(DESCRIBE)
    (folder / "ask_too_much.py").write_text(ASK_TOO_MUCH)
    return folder


def test_the_uploaded_copy_runs_even_over_an_older_wheel(head: Head, checkout: Path) -> None:
    finished = head.submit(checkout, RUNTIME_ENV, ["python", "describe.py"])
    assert finished.returncode == 0, finished.stdout + finished.stderr
    joined = re.search(r"^JOINED (\S+) (\S+) (\S+) (\S+) (\S+)$", finished.stdout, re.MULTILINE)
    assert joined, finished.stdout
    version, path, local, cpus, address = joined.groups()
    assert version != OLD_VERSION
    assert re.search(r"/working_dir_files/_ray_pkg_\w+/lib/rankmill$", path)
    assert (local, cpus, address) == ("False", "4.0", head.address)


def test_a_stale_install_is_refused(head: Head, checkout: Path, image: Path) -> None:
    """Without PYTHONPATH the older wheel would run, and succeed in silence."""
    finished = head.submit(checkout, [], ["python", "describe.py"])
    assert finished.returncode != 0
    assert "JOINED" not in finished.stdout
    said = finished.stdout + finished.stderr
    assert f"This process runs rankmill {OLD_VERSION} (source " in said
    assert f"from {image}/rankmill, but the script came with rankmill " in said
    assert "jobs/runtime_env.yaml" in said


def test_workers_that_import_another_copy_than_the_driver_are_refused(head: Head, checkout: Path, image: Path) -> None:
    """A driver on the head node, outside any job: its own path does not reach the workers."""
    finished = subprocess.run(
        [sys.executable, "-c", DESCRIBE],
        env={**head.environment, "PYTHONPATH": str(checkout / "lib"), "RAY_ADDRESS": head.address},
        cwd=checkout.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode != 0
    said = finished.stderr
    assert f"from {checkout}/lib/rankmill, but node 127.0.0.1 would run rankmill {OLD_VERSION} (source " in said
    assert f"from {image}/rankmill. Make every process import the same copy" in said


def test_a_driver_without_the_token_is_told_about_it(head: Head, checkout: Path) -> None:
    without = {name: value for name, value in head.environment.items() if not name.startswith("RAY_AUTH")}
    finished = subprocess.run(
        [sys.executable, "-c", DESCRIBE],
        env={**without, "PYTHONPATH": str(checkout / "lib"), "RAY_ADDRESS": head.address},
        cwd=checkout.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (
        f"UsageError: The Ray cluster at {head.address} refused this process: its token is missing" in finished.stderr
    )


def test_the_job_server_refuses_clients_without_the_token(head: Head) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with pytest.raises(urllib.error.HTTPError) as refused:
        opener.open(f"{head.jobs}/api/jobs/", timeout=10)
    assert refused.value.code == 401
    refused.value.close()


def test_the_head_listens_on_loopback_only(head: Head) -> None:
    pids = pids_with("RANKMILL_TEST_CLUSTER", head.marker)
    assert {address.removeprefix("::ffff:") for address in listening_addresses(pids)} == {"127.0.0.1"}


def test_workers_that_a_fixed_cluster_cannot_hold_are_refused(head: Head, checkout: Path) -> None:
    """Ray would wait for ever, without a word. An autoscaler's cluster would be given its chance."""
    finished = head.submit(checkout, RUNTIME_ENV, ["python", "ask_too_much.py"])
    assert "4 workers with 1 CPU each cannot run at once: the cluster at 127.0.0.1:" in finished.stdout
    assert "4 CPUs, of which 1 CPU must stay free to read and write. Ask for at most 3 workers" in finished.stdout


def test_rerank_runs_as_a_job(head: Head, checkout: Path, tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", "bert")
    count = 30
    pq.write_table(
        pa.table(
            {
                "query_id": [f"q{i // 10}" for i in range(count)],
                "query": [f"what is number {i // 10}" for i in range(count)],
                "doc_id": [f"d{i}" for i in range(count)],
                "text": [f"number {i} is the one after {i - 1}" for i in range(count)],
            }
        ),
        tmp_path / "pairs.parquet",
    )
    output = tmp_path / "out"
    flags = [
        "--input",
        str(tmp_path / "pairs.parquet"),
        "--output",
        str(output),
        "--model",
        str(model),
        "--workers",
        "1",
        "--gpus-per-worker",
        "0",
    ]
    finished = head.submit(checkout, RUNTIME_ENV, ["python", "jobs/rerank.py", *flags])
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert str(output) in finished.stdout
    assert (output / "_SUCCESS").is_file()
    assert pq.read_table(output).num_rows == count


def test_the_exit_code_follows_the_job(head: Head, checkout: Path) -> None:
    """Ray's own client exits with 1 for every failed job, and says in words what the job's exit code was."""
    flags = ["--input", "nowhere.parquet", "--output", "out", "--top-k", "0"]
    finished = head.submit(checkout, RUNTIME_ENV, ["python", "jobs/rerank.py", *flags])
    assert "--top-k 0" in finished.stdout
    assert "Job entrypoint command failed with exit code 2" in finished.stdout
    assert finished.returncode == 1
