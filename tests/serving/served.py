"""`rankmill serve` as a process of its own, with all that it starts."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.processes import end_all_with, listening, pids_with
from tests.serving.scrape import series
from tests.tiny_models import CORPUS

LIBRARY = Path(__file__).parents[2] / "lib"
MARKER = "RANKMILL_TEST_CLUSTER"
BODY = {"query": CORPUS[0], "documents": list(CORPUS)}


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Server:
    """A running `rankmill serve`."""

    process: "subprocess.Popen[str]"
    url: str
    marker: str
    environment: Mapping[str, str]
    """Of the process, the marker included."""
    greeting: str = ""

    @property
    def port(self) -> int:
        """That it listens on."""
        return int(self.url.rpartition(":")[2])

    def rerank(self, model: str | None = None) -> tuple[int, list[int]]:
        """Status, and positions of the documents, best first; by the default model, where none is named."""
        body = json.dumps({**BODY, "model": model}).encode()
        request = urllib.request.Request(  # noqa: S310 - the address is our own
            f"{self.url}/v1/rerank", body, {"Content-Type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=180) as answer:
            return answer.status, [result["index"] for result in json.loads(answer.read())["results"]]

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=120)

    def post(self, body: bytes, request_id: str = "any") -> tuple[int, bytes]:
        """Status and body of the answer to any bytes."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)) as connection:
            headers = {"Content-Type": "application/json", "X-Request-Id": request_id}
            connection.request("POST", "/v1/rerank", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def command(self, *arguments: str) -> str:
        """Run another command of rankmill in the server's folder, on a Ray of its own; its stdout."""
        environment = {name: value for name, value in self.environment.items() if name != "RAY_AUTH_TOKEN"}
        command = [sys.executable, "-m", "rankmill", *arguments]
        folder = environment["HOME"]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pids(self) -> list[int]:
        """Ids of the process and of all that it started."""
        return pids_with(MARKER, self.marker)

    def replicas(self, deployment: str) -> list[int]:
        """Ids of the processes of a deployment's replicas; `deployment` is how its name begins."""
        return [pid for pid in self.pids() if f"ServeReplica:rankmill:{deployment}" in command(pid)]

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a page."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def scrape(self, gateway: int) -> dict[str, float]:
        """The series of one gateway's process, which is asked past HAProxy."""
        for _, port in sorted(listening(gateway)):
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
                try:
                    connection.request("GET", "/metrics")
                    answer = connection.getresponse()
                except (http.client.HTTPException, OSError):  # Ray's own ports speak no HTTP
                    continue
                if answer.status == 200:
                    return series(answer.read().decode())
        raise AssertionError(f"no port of {gateway} has metrics")

    def haproxies(self) -> list[int]:
        """Ids of HAProxy's processes."""
        return [pid for pid in self.pids() if command(pid).partition("\0")[0].endswith("/haproxy")]

    def wait_for_replicas(self, deployment: str, gone: Collection[int] = (), count: int = 1) -> list[int]:
        """Replicas that are not `gone`, once there are so many."""
        pause = threading.Event()
        for _ in range(600):
            found = [pid for pid in self.replicas(deployment) if pid not in gone]
            if len(found) >= count:
                return found
            pause.wait(0.1)
        raise AssertionError(f"{len(found)} replicas of {deployment}, and no more")


def answer_on(connection: socket.socket) -> tuple[int, bytes]:
    """What comes back on a bare connection: status and body."""
    with closing(http.client.HTTPResponse(connection)) as answer:
        answer.begin()
        return answer.status, answer.read()


def command(pid: int) -> str:
    """The command line of a process; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


@contextmanager
def serving(arguments: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run the command until the end of the `with` block, at which everything that it started is killed.

    Its stderr goes to `errors.log` in `folder`.
    """
    port, marker = free_port(), uuid.uuid4().hex
    whole = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(LIBRARY),
        "OMP_NUM_THREADS": "1",
        MARKER: marker,
        **(environment or {}),
    }
    log = (folder / "errors.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "rankmill", "serve", "--port", str(port), *arguments],
        env=whole,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,
    )
    log.close()
    server = Server(process, f"http://127.0.0.1:{port}", marker, whole)
    try:
        assert process.stdout is not None
        server.greeting = process.stdout.readline() + process.stdout.readline()
        assert server.greeting.startswith("Serving"), (folder / "errors.log").read_text()
        yield server
    finally:
        end_all_with(MARKER, marker)
        with process:
            pass
