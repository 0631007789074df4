"""`serve deploy serve/config.yaml`, on a Ray cluster of two nodes whose code comes in a zip file from S3."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
import yaml

from rankmill.cluster.haproxy import _environment
from tests.cluster.processes import end_all_with, pids_with
from tests.s3_server import s3_environment
from tests.serving.served import MARKER, command, free_port
from tests.tiny_models import CORPUS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
NODES = """
import json, os, sys
from ray.cluster_utils import Cluster
dashboard, of_head, of_worker = map(json.loads, sys.argv[1:])
os.environ.update(of_head)
served = {"include_dashboard": True, "dashboard_host": "127.0.0.1", "dashboard_port": dashboard}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, **served})
os.environ.update(of_worker)
cluster.add_node(num_cpus=3)
print("ready", flush=True)
sys.stdin.read()
"""
BODY = {"query": "how do dogs warn", "documents": list(CORPUS)}


class Cluster:
    """The two nodes, and what is deployed on them."""

    def __init__(self, jobs: str, environment: Mapping[str, str], working_dir: str, worker_port: int) -> None:
        self.environment = environment
        self._jobs = jobs
        self.head_port = free_port()
        """Of its proxy; on two machines, both nodes would have this one."""
        self.worker_port = worker_port
        self.config: dict[str, Any] = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text())
        self.config["http_options"]["port"] = self.head_port
        self.application["runtime_env"] = {"working_dir": working_dir}

    @property
    def application(self) -> dict[str, Any]:
        """The only one."""
        (application,) = self.config["applications"]
        return application  # type: ignore[no-any-return]

    def deploy(self, folder: Path) -> None:
        """`serve deploy` what `config` says now."""
        file = folder / "config.yaml"
        file.write_text(yaml.safe_dump(self.config))
        done = subprocess.run(
            [BIN / "serve", "deploy", file, "--address", self._jobs],
            env=self.environment,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr

    def rerank(self, port: int, **fields: Any) -> tuple[int, Any]:
        """Status and body of an answer; status 0 where nobody listens."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/rerank",
            json.dumps({**BODY, **fields}).encode(),
            {"Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError as error:
            return 0, str(error)

    def status(self) -> Any:
        """What Ray says of the application."""
        token = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        request = urllib.request.Request(f"{self._jobs}/api/serve/applications/", headers=token)  # noqa: S310
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return json.loads(answer.read())["applications"]["rankmill"]

    def scorers(self) -> int:
        """Replicas of the model that run."""
        (found,) = (part for name, part in self.status()["deployments"].items() if name.startswith("scorer-"))
        return sum(replica["state"] == "RUNNING" for replica in found["replicas"])

    def wait(self, condition: Callable[[], bool]) -> None:
        """Until something is true; says what Ray says where it does not happen."""
        pause = threading.Event()
        for _ in range(1200):
            if condition():
                return
            pause.wait(0.1)
        raise AssertionError(json.dumps(self.status(), indent=1))


@pytest.fixture(scope="module")
def working_dir(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """`git archive --prefix rankmill/ -o rankmill.zip HEAD lib serve`, on S3; of what lies here instead of HEAD."""
    file = tmp_path_factory.mktemp("code") / "rankmill.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for path in [*ROOT.glob("lib/**/*"), *ROOT.glob("serve/*")]:
            if path.is_file() and "__pycache__" not in path.parts:
                archive.write(path, Path("rankmill") / path.relative_to(ROOT))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_environment(s3_endpoint).items():
            patch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="code")
        client.upload_file(str(file), "code", "rankmill.zip")
        client.close()
    return "s3://code/rankmill.zip"


@pytest.fixture(scope="module")
def cluster(s3_endpoint: str, working_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder, marker = tmp_path_factory.mktemp("cluster"), uuid.uuid4().hex
    dashboard, worker_port = free_port(), free_port()
    environment = s3_environment(s3_endpoint) | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "PYTHONPATH": "lib",  # as in cluster.yaml
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": os.environ["RAY_AUTH_TOKEN"],
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # 127.0.0.1 alone
        "RAY_USAGE_STATS_ENABLED": "0",
        MARKER: marker,
    }
    with ExitStack() as stack:
        # two machines would each have their own folders and ports for HAProxy
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rm-"))) for _ in range(2)]
        of_head, of_worker = (_environment(folder, {}) for folder in folders)
        of_worker["RAY_SERVE_WORKER_PROXY_HTTP_PORT"] = str(worker_port)
        stack.callback(end_all_with, MARKER, marker)
        starting = [sys.executable, "-c", NODES, str(dashboard), json.dumps(of_head), json.dumps(of_worker)]
        nodes = stack.enter_context(
            subprocess.Popen(
                starting, env=environment, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
        stack.callback(nodes.kill)
        assert nodes.stdout is not None
        assert nodes.stdout.readline() == "ready\n"
        yield Cluster(f"http://127.0.0.1:{dashboard}", environment, working_dir, worker_port)


def test_the_shipped_config_serves_is_updated_and_answers_at_every_node(cluster: Cluster, tmp_path: Path) -> None:
    model = cluster.application["args"]["models"][0]
    cluster.deploy(tmp_path)
    cluster.wait(lambda: cluster.rerank(cluster.head_port, model="default")[0] == 200)
    _, before = cluster.rerank(cluster.head_port, model="builtin")
    processes = pids_with(MARKER, cluster.environment[MARKER])
    assert any("haproxy.cfg" in command(pid) for pid in processes)

    statuses: list[int] = []
    enough = threading.Event()

    def client() -> None:
        while not enough.is_set():
            statuses.append(cluster.rerank(cluster.head_port)[0])

    thread = threading.Thread(target=client)
    thread.start()
    try:
        model |= {"aliases": ["rerank-v3.5"], "replicas": "2,4"}
        cluster.deploy(tmp_path)
        cluster.wait(lambda: cluster.rerank(cluster.head_port, model="rerank-v3.5")[0] == 200)
        cluster.wait(lambda: cluster.scorers() == 2)
        cluster.wait(lambda: cluster.rerank(cluster.worker_port)[0] == 200)
    finally:
        enough.set()
        thread.join()
    assert set(statuses) == {200}

    for port in (cluster.head_port, cluster.worker_port):
        status, after = cluster.rerank(port, model="rerank-v3.5")
        assert (status, after["results"]) == (200, before["results"])
    assert cluster.rerank(cluster.head_port, model="default")[0] == 404
