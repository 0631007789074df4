"""Applications deployed on the Ray of the test session, and clients for them."""

import json
import socket
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rankmill.scoring.load import load_scorer
from rankmill.scoring.scorer import Scorer
from rankmill.serving.backend import ModelInfo
from rankmill.serving.index import index_of
from rankmill.serving.models import models_of
from rankmill.settings.serve import EndpointSettings
from tests.tiny_models import CORPUS

BODY: dict[str, Any] = {"query": CORPUS[0], "documents": [*CORPUS, "", CORPUS[1] * 3]}


@dataclass(frozen=True, slots=True)
class Running:
    """A deployed application."""

    url: str
    name: str
    model: ModelInfo
    scorer: Scorer

    def expected(self) -> list[int]:
        """Positions of the documents of `BODY`, best first."""
        documents = BODY["documents"]
        logits = self.scorer.logits(self.scorer.encode([CORPUS[0]] * len(documents), documents))
        return [int(i) for i in np.argsort(-logits, kind="stable")]

    def rerank(self, body: dict[str, Any], **headers: str) -> tuple[int, Any]:
        """Status and body of an answer."""
        return self.post("/v1/rerank", body, **headers)

    def post(self, path: str, body: dict[str, Any], **headers: str) -> tuple[int, Any]:
        """The same of any route."""
        request = urllib.request.Request(  # noqa: S310 - the address is our own
            f"{self.url}{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", **headers},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=180) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def serve_started() -> Iterator[str]:
    """Ray Serve on the Ray that this process is connected to; yields its address."""
    from ray import serve  # noqa: PLC0415
    from ray.serve.config import HTTPOptions  # noqa: PLC0415

    port = free_port()
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]


def deploy(address: str, **flags: Any) -> Running:
    """Deploy a model as `tiny`; ends with Serve, or with `serve.delete`."""
    from ray import serve  # noqa: PLC0415

    from rankmill.serving.application import application  # noqa: PLC0415

    settings = EndpointSettings(gpus_per_replica=0, name="tiny", aliases=("small",), **flags)
    name = f"test-{uuid.uuid4().hex[:12]}"
    models = models_of(settings)
    serve.run(application(settings, models, index_of(settings)), name=name, route_prefix=f"/{name}")
    return Running(f"{address}/{name}", name, models["tiny"], load_scorer(models["tiny"].options))


def replica_processes(application: str, deployment: str = "scorer-") -> list[int]:
    """Replicas of one application of this test; `deployment` is how the name of theirs begins."""
    marker = f"ServeReplica:{application}:{deployment}".encode()
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if marker in _command_line(entry)]


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def wait_for_replicas(
    application: str, gone: Collection[int] = (), count: int = 1, *, deployment: str = "scorer-"
) -> list[int]:
    """Replicas that are not `gone`, once there are so many."""
    wait = threading.Event()
    for _ in range(1200):
        found = [pid for pid in replica_processes(application, deployment) if pid not in gone]
        if len(found) >= count:
            return found
        wait.wait(0.1)
    raise AssertionError(f"{len(found)} replicas, and no more")
