"""A Ray head of one's own: private ports, folder and token, on loopback, gone without a trace at the end."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.processes import end_all_with

_READY_SECONDS = 90.0
_BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Head:
    """A running head node."""

    address: str
    """Of the control store, for RAY_ADDRESS: host:port."""
    jobs: str
    """Of the job server: http://host:port."""
    environment: dict[str, str]
    """For clients: with the token."""
    marker: str
    """Value of RANKMILL_TEST_CLUSTER in every process of the cluster."""

    def submit(
        self, working_dir: Path, options: Sequence[str], job: Sequence[str]
    ) -> "subprocess.CompletedProcess[str]":
        """`ray job submit --working-dir WORKING_DIR OPTIONS -- JOB`, to its end."""
        return subprocess.run(
            [
                str(_BIN / "ray"), "job", "submit", "--address", self.jobs, "--working-dir", str(working_dir),
                *options, "--", *job,
            ],
            env=self.environment,
            cwd=working_dir,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )  # fmt: skip


@contextmanager
def running_head(num_cpus: int, environment: Mapping[str, str] | None = None) -> Iterator[Head]:
    """Start a head node that asks for a token, with `environment` on top; end every one of its processes afterwards.

    Raises:
        RuntimeError: it ended, or its job server did not answer in time.
    """
    # Not pytest's folder: the paths of Ray's sockets may have 107 characters at most.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    marker = uuid.uuid4().hex
    token = folder / "token"
    token.write_text(uuid.uuid4().hex)
    control, dashboard, client, agent = _free_ports(4)
    client_environment = {
        "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # 127.0.0.1 alone
        "RAY_USAGE_STATS_ENABLED": "0",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
    log = (folder / "start.log").open("w")
    head = subprocess.Popen(
        [
            str(_BIN / "ray"), "start", "--head", "--block", f"--num-cpus={num_cpus}", f"--temp-dir={folder}/ray",
            f"--port={control}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
            f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}",
            "--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=200000000",
        ],
        env={**client_environment, **(environment or {}), "RANKMILL_TEST_CLUSTER": marker},
        cwd=folder,
        stdout=log,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        jobs = f"http://127.0.0.1:{dashboard}"
        _wait_until_ready(jobs, token.read_text(), head, folder / "start.log")
        yield Head(f"127.0.0.1:{control}", jobs, client_environment, marker)
    finally:
        end_all_with("RANKMILL_TEST_CLUSTER", marker)
        head.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _wait_until_ready(jobs: str, token: str, head: "subprocess.Popen[bytes]", log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"{jobs}/api/jobs/", headers={"Authorization": f"Bearer {token}"})  # noqa: S310
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        if head.poll() is not None:
            raise RuntimeError(f"ray start ended with code {head.returncode}: {log.read_text()}")
        try:
            opener.open(request, timeout=5).close()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
        else:
            return
    raise RuntimeError(f"the job server at {jobs} did not answer within {_READY_SECONDS:g} s: {log.read_text()}")
