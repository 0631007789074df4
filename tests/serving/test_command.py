"""`rankmill serve`, as a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest

from rankmill.cli.main import main
from tests.cluster.processes import (
    end_all_with,
    listening_addresses,
    pids_with,
    psutil,
    wait_until_none_with,
)
from tests.tiny_models import CORPUS, save_tiny_model

LIBRARY = Path(__file__).parents[2] / "lib"
MARKER = "RANKMILL_TEST_CLUSTER"
LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
BODY = {"query": CORPUS[0], "documents": list(CORPUS)}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Server:
    """A running `rankmill serve`."""

    process: "subprocess.Popen[str]"
    url: str
    marker: str
    greeting: str = ""

    def rerank(self) -> tuple[int, list[int]]:
        """Status, and positions of the documents, best first."""
        request = urllib.request.Request(  # noqa: S310 - the address is our own
            f"{self.url}/v1/rerank", json.dumps(BODY).encode(), {"Content-Type": "application/json"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=180) as answer:
            return answer.status, [result["index"] for result in json.loads(answer.read())["results"]]

    def replicas(self, deployment: str) -> list[int]:
        """Ids of the processes of a deployment's replicas."""
        return [pid for pid in pids_with(MARKER, self.marker) if f"ServeReplica:rankmill:{deployment}" in command(pid)]


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def answer_without_token(address: tuple[str, int]) -> grpc.StatusCode:
    """What a replica says to a call from somebody who does not have the token of its Ray."""
    with grpc.insecure_channel(f"127.0.0.1:{address[1]}") as channel:
        call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
        with pytest.raises(grpc.RpcError) as raised:
            call(b"", timeout=30)
    code: grpc.StatusCode = raised.value.code()
    return code


def listening(pid: int) -> set[tuple[str, int]]:
    connections = psutil.Process(pid).net_connections(kind="tcp")
    return {(item.laddr.ip, item.laddr.port) for item in connections if item.status == psutil.CONN_LISTEN}


@contextmanager
def serving(arguments: list[str], folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    port, marker = free_port(), uuid.uuid4().hex
    log = (folder / "errors.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "rankmill", "serve", "--port", str(port), *arguments],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PYTHONPATH": str(LIBRARY),
            "OMP_NUM_THREADS": "1",
            MARKER: marker,
            **(environment or {}),
        },
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,
    )
    log.close()
    server = Server(process, f"http://127.0.0.1:{port}", marker)
    try:
        assert process.stdout is not None
        server.greeting = process.stdout.readline() + process.stdout.readline()
        assert server.greeting, (folder / "errors.log").read_text()
        yield server
    finally:
        end_all_with(MARKER, marker)
        with process:
            pass


@pytest.mark.slow
def test_it_answers_survives_its_scorer_and_stops_when_told_to(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "tiny", "bert")
    before = set(Path("/tmp").glob("rm-haproxy-*"))  # noqa: S108 - where the command makes its folder
    with serving(["--model", str(model), "--timeout-seconds", "150"], tmp_path) as server:
        assert server.greeting.startswith(f"Serving tiny at {server.url}.")
        expected = server.rerank()
        assert expected[0] == 200
        pids = pids_with(MARKER, server.marker)
        assert any("haproxy.cfg" in command(pid) for pid in pids)
        replicas = server.replicas("")
        others = [pid for pid in pids if pid not in replicas]
        assert listening_addresses(others) <= LOOPBACK
        # Ray has replicas listen for each other on every address, and unpickles what comes
        exposed = [found for pid in replicas for found in listening(pid) if found[0] not in LOOPBACK]
        assert {answer_without_token(address) for address in exposed} == {grpc.StatusCode.UNAUTHENTICATED}

        enough = threading.Event()
        answers: list[Any] = []

        def client() -> None:
            while not enough.is_set():
                try:
                    answers.append(server.rerank())
                except OSError as error:
                    answers.append(error)

        clients = [threading.Thread(target=client) for _ in range(4)]
        for thread in clients:
            thread.start()
        gone: set[int] = set()
        for _ in range(2):
            scorer = new_scorer(server, gone)
            os.kill(scorer, signal.SIGKILL)
            gone.add(scorer)
            new_scorer(server, gone)
            wait_for(answers, len(answers) + 20)
        enough.set()
        for thread in clients:
            thread.join()
        assert [answer for answer in answers if answer != expected] == []

        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=60) == 0
        assert wait_until_none_with(MARKER, server.marker) == []
    assert set(Path("/tmp").glob("rm-haproxy-*")) <= before  # noqa: S108


def wait_for(answers: list[Any], count: int) -> None:
    pause = threading.Event()
    for _ in range(1200):
        if len(answers) >= count:
            return
        pause.wait(0.1)
    raise AssertionError(f"{len(answers)} answers, and no more")


def new_scorer(server: Server, gone: set[int]) -> int:
    pause = threading.Event()
    for _ in range(600):
        found = set(server.replicas("scorer-")) - gone
        if found:
            return found.pop()
        pause.wait(0.1)
    raise AssertionError("no scorer")


def test_a_port_that_is_taken_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 2
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_an_open_address_without_keys_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANKMILL_API_KEYS", raising=False)
    assert main(["serve", "--host", "0.0.0.0", "--port", str(free_port())]) == 2  # noqa: S104 - it is refused
    assert "--keys-file" in capsys.readouterr().err


def test_a_model_that_cannot_be_used_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["serve", "--model", str(tmp_path / "nothing"), "--port", str(free_port())]) == 2
    assert "nothing" in capsys.readouterr().err
