"""`rankmill serve`, as a process of its own."""

import json
import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest

from rankmill.cli.main import main
from tests.cluster.processes import listening, listening_addresses, pids_with, psutil, wait_until_none_with
from tests.serving.served import MARKER, command, free_port, serving
from tests.tiny_models import save_tiny_model

LOOPBACK = {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def answer_without_token(address: tuple[str, int]) -> grpc.StatusCode:
    """What a replica says to a call from somebody who does not have the token of its Ray."""
    with grpc.insecure_channel(f"127.0.0.1:{address[1]}") as channel:
        call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
        with pytest.raises(grpc.RpcError) as raised:
            call(b"", timeout=30)
    code: grpc.StatusCode = raised.value.code()
    return code


@pytest.mark.slow
def test_it_answers_survives_its_scorer_and_stops_when_told_to(tmp_path: Path) -> None:
    models = [
        {"model": str(save_tiny_model(tmp_path / "tiny", "bert")), "threads": 1},
        {"model": str(save_tiny_model(tmp_path / "other", "bert", seed=1)), "aliases": ["rerank-v3.5"], "threads": 1},
    ]
    config = tmp_path / "serve.yaml"
    config.write_text(json.dumps({"models": models, "timeout_seconds": 150}))
    with serving(["--config", str(config)], tmp_path) as server:
        assert server.greeting.startswith(f"Serving tiny, other at {server.url}.")
        expected = server.rerank()
        assert expected[0] == 200
        assert expected == server.rerank("tiny") != server.rerank("other") == server.rerank("rerank-v3.5")
        pids = pids_with(MARKER, server.marker)
        assert any("haproxy.cfg" in command(pid) for pid in pids)
        replicas = server.replicas("")
        haproxy_file = Path(psutil.Process(replicas[0]).environ()["RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"])
        assert haproxy_file.parent.exists()
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
            (scorer,) = server.wait_for_replicas("scorer-tiny", gone)
            os.kill(scorer, signal.SIGKILL)
            gone.add(scorer)
            server.wait_for_replicas("scorer-tiny", gone)
            wait_for(answers, len(answers) + 20)
        enough.set()
        for thread in clients:
            thread.join()
        assert [answer for answer in answers if answer != expected] == []

        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=60) == 0
        assert wait_until_none_with(MARKER, server.marker) == []
    assert not haproxy_file.parent.exists()


def wait_for(answers: list[Any], count: int) -> None:
    pause = threading.Event()
    for _ in range(1200):
        if len(answers) >= count:
            return
        pause.wait(0.1)
    raise AssertionError(f"{len(answers)} answers, and no more")


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
