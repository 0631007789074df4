"""Replicas that come with the work, on a real Ray Serve."""

import threading
from pathlib import Path
from typing import Any

import pytest

from tests.serving.endpoint import BODY, deploy, replica_processes, serve_started, wait_for_replicas
from tests.tiny_models import save_tiny_model

pytestmark = pytest.mark.slow


def test_a_model_that_sleeps_is_woken_by_a_request_grows_with_the_work_and_sleeps_again(
    local_ray: None,  # noqa: ARG001 - Serve runs on it
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rankmill.serving.application._DOWNSCALE_SECONDS", 3.0)  # of 120
    model = save_tiny_model(tmp_path / "tiny", "bert")
    with serve_started() as address:
        endpoint = deploy(
            address, model=str(model), replicas=(0, 2), scale_seconds=0.001, cache_bytes=0, timeout_seconds=150
        )
        assert replica_processes(endpoint.name) == []
        status, answer = endpoint.rerank(BODY)
        assert status == 200
        assert [result["index"] for result in answer["results"]] == endpoint.expected()
        assert len(replica_processes(endpoint.name)) == 1

        enough = threading.Event()
        answers: list[tuple[int, Any]] = []
        large = {"query": "a query", "documents": [f"{i} " * 100 for i in range(300)]}

        def client() -> None:
            while not enough.is_set():
                answers.append(endpoint.rerank(large))

        clients = [threading.Thread(target=client) for _ in range(4)]
        for thread in clients:
            thread.start()
        try:
            wait_for_replicas(endpoint.name, count=2)
        finally:
            enough.set()
            for thread in clients:
                thread.join()
        assert {status for status, _ in answers} == {200}

        wait_for_none(endpoint.name)
        status, answer = endpoint.rerank(BODY)
        assert status == 200
        assert [result["index"] for result in answer["results"]] == endpoint.expected()


def wait_for_none(application: str) -> None:
    """Return once the model has no replica any more."""
    pause = threading.Event()
    for _ in range(1200):
        if not replica_processes(application):
            return
        pause.wait(0.1)
    raise AssertionError(f"replicas that nobody needs: {replica_processes(application)}")
