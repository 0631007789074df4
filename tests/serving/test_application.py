"""The application on a real Ray Serve, over a real socket."""

import asyncio
import importlib
import logging
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rankmill.cli.startup import wait_until_up
from rankmill.errors import NoProgressError
from rankmill.retrieval.retriever import Found
from rankmill.scoring.activation import activate
from rankmill.scoring.text_encoder import TextEncoder
from rankmill.serving.backend import OtherVersionError
from rankmill.serving.index import IndexInfo
from rankmill.serving.request_error import Kind, RequestError
from rankmill.settings.gateway import GatewaySettings
from rankmill.settings.serve import EndpointSettings, ModelSettings, deployment_name
from rankmill.settings.storage import StorageSettings
from tests.serving.endpoint import BODY, Running, deploy, serve_started
from tests.serving.live import live
from tests.serving.test_plugin import plugged
from tests.tiny_models import CORPUS, save_tiny_model


@pytest.fixture(scope="module")
def address(local_ray: None) -> Iterator[str]:  # noqa: ARG001 - Serve runs on it
    with serve_started() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), "bert")


@pytest.fixture(scope="module")
def running(address: str, folder: Path) -> Running:
    return deploy(address, model=str(folder), timeout_seconds=150)  # a new replica takes time on a busy machine


def test_an_http_request_gets_the_scores_of_the_bare_scorer(running: Running) -> None:
    documents = BODY["documents"]
    status, answer = running.rerank({**BODY, "model": "small"})
    assert status == 200
    logits = running.scorer.logits(running.scorer.encode([CORPUS[0]] * len(documents), documents))
    assert [result["index"] for result in answer["results"]] == running.expected()
    found = [result["relevance_score"] for result in answer["results"]]
    np.testing.assert_allclose(found, activate(logits, running.scorer.activation)[running.expected()], atol=1e-5)


def test_the_id_of_a_request_comes_back_once(running: Running) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    for given in ({}, {"X-Request-Id": "mine-1"}):
        with opener.open(urllib.request.Request(f"{running.url}/healthz", headers=given), timeout=60) as answer:  # noqa: S310 - our own
            found = answer.headers.get_all("x-request-id")
        assert len(found) == 1
        assert found[0] == given.get("X-Request-Id", found[0])


def test_a_request_for_another_model_is_refused(running: Running) -> None:
    status, _ = running.rerank({**BODY, "model": "no-such-model"})
    assert status == 404


def test_the_backend_over_handles(running: Running) -> None:
    from ray import serve  # noqa: PLC0415

    from rankmill.serving.serve_backend import ServeBackend  # noqa: PLC0415

    pairs = running.scorer.encode([CORPUS[0]] * 20, [f"document {i}" for i in range(20)])

    async def test() -> None:
        handle: Any = serve.get_deployment_handle(deployment_name("tiny"), running.name)
        backend = ServeBackend({"tiny": running.model}, {"tiny": handle})
        assert await backend.ready("tiny")
        assert not await backend.ready("other")
        for cached in (0, 20):
            found = await backend.score(running.model, pairs, 60.0)
            np.testing.assert_allclose(found.logits, running.scorer.logits(pairs), atol=1e-5)
            assert (found.cached, found.work.pairs) == (cached, 20 - cached)
        with pytest.raises(RequestError) as raised:
            await backend.score(running.model, pairs, 0.0)
        assert raised.value.kind is Kind.DEADLINE
        before = replace(running.model, card=replace(running.model.card, fingerprint="of another version"))
        with pytest.raises(OtherVersionError) as newer:
            await backend.score(before, pairs, 60.0)
        assert newer.value.info == running.model

    asyncio.run(test())


def test_an_endpoint_that_fails_is_asked_by_its_own_patience_alone(address: str) -> None:  # noqa: ARG001 - Serve runs
    from ray import serve  # noqa: PLC0415

    from rankmill.serving.deployments import ScorerDeployment  # noqa: PLC0415
    from rankmill.serving.serve_backend import ServeBackend  # noqa: PLC0415

    async def test(handle: Any) -> None:
        backend = ServeBackend({"plugin": info}, {"plugin": handle})
        with pytest.raises(RequestError) as raised:
            await backend.score(info, TextEncoder().encode(["a query"], ["a document"]), 60.0)
        assert raised.value.kind is Kind.UNAVAILABLE
        assert (raised.value.retry_after or 0) >= 1

    with plugged() as (info, plugin):
        plugin.status = 503
        deployment: Any = serve.deployment  # typed for its use as a decorator
        scorer = deployment(ScorerDeployment, name="plugin", ray_actor_options={"num_cpus": 0})
        asyncio.run(test(serve.run(scorer.bind(info, 1_000_000, 0), name="plugin", route_prefix=None)))
        assert plugin.asked == 2
        serve.delete("plugin")


def test_a_model_without_a_replica_is_unavailable_and_not_late(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.serve.handle import DeploymentHandle  # noqa: PLC0415

    from rankmill.serving.serve_backend import ServeBackend  # noqa: PLC0415

    monkeypatch.setattr("rankmill.serving.presence._EVERY", 0.1)  # of 1
    monkeypatch.setattr("rankmill.serving.presence._PATIENCE", 0.1)  # of 2
    pairs = running.scorer.encode([CORPUS[0]], ["a document"])

    async def test() -> None:
        nobody: Any = DeploymentHandle("of-nobody", running.name)
        backend = ServeBackend({"tiny": running.model}, {"tiny": nobody})
        assert not await backend.ready("tiny")
        for _ in range(2):  # the second one when it is known already
            with pytest.raises(RequestError) as raised:
                await backend.score(running.model, pairs, 1.0)
            assert raised.value.kind is Kind.UNAVAILABLE
            assert (raised.value.retry_after or 0) >= 1

    asyncio.run(test())


class Index:
    """Searches nothing, and takes its time."""

    def __init__(self) -> None:
        self.most = self.now = 0
        self.go = asyncio.Event()

    async def search(self, *_arguments: object) -> Found:
        self.now += 1
        self.most = max(self.most, self.now)
        await self.go.wait()
        self.now -= 1
        return Found((), (), (), ())


INDEX = IndexInfo("an-index", StorageSettings(), None, ("doc_id",))


def test_an_index_without_a_replica_is_unavailable_and_not_late(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.serve.handle import DeploymentHandle  # noqa: PLC0415

    from rankmill.serving.serve_retriever import ServeRetriever  # noqa: PLC0415

    monkeypatch.setattr("rankmill.serving.presence._EVERY", 0.2)  # of 1
    monkeypatch.setattr("rankmill.serving.presence._PATIENCE", 0.4)  # of 2
    nobody: Any = DeploymentHandle("of-nobody", running.name)
    with live(GatewaySettings(), running.model, retriever=ServeRetriever(INDEX, nobody)) as server:
        for path, body in (
            ("/v1/search", {"query": "canary"}),
            ("/v1/pipelines/execute", {"inputs": {"query": "canary"}, "stages": [{"stage_id": "search"}]}),
        ):
            answer = server.post(body, path, {"X-Request-Timeout-Ms": "2000"})
            assert answer.status == 503, answer.body
            assert answer.headers["retry-after"] == "5"
            assert "No replica that searches the index" in answer.json["error"]["message"]
        assert server.post({"query": "q", "documents": ["d"]}).status == 200


def test_searches_wait_for_their_turn_and_more_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from rankmill.serving.deployments import RetrieverDeployment  # noqa: PLC0415

    async def test() -> None:
        index = Index()

        async def opened(_info: IndexInfo) -> Index:
            return index

        monkeypatch.setattr("rankmill.serving.deployments.open_index", opened)
        replica = RetrieverDeployment.__new__(RetrieverDeployment)
        await replica.__init__(INDEX)  # type: ignore[misc]  # as Ray Serve does
        searches = [asyncio.create_task(replica.search("q", 1, "sparse", None)) for _ in range(16 + 256)]
        await asyncio.sleep(0)
        refused = await replica.search("q", 1, "sparse", None)
        assert isinstance(refused, RequestError)
        assert refused.kind is Kind.OVERLOADED
        assert await replica.awake()
        index.go.set()
        assert all(isinstance(found, Found) for found in await asyncio.gather(*searches))
        assert index.most == 16
        assert isinstance(await replica.search("q", 1, "sparse", None), Found)

    asyncio.run(test())


@contextmanager
def starting(model: str, file: Path) -> Iterator[str]:
    """An application with one model that is up as soon as there is a file."""
    from ray import serve  # noqa: PLC0415

    class Scorer:
        def __init__(self) -> None:
            import time  # noqa: PLC0415 - in a process of its own

            while not file.exists():
                time.sleep(0.02)

    class Gateway:
        def __init__(self, scorer: object) -> None:
            pass

    deployment: Any = serve.deployment  # typed for its use as a decorator
    options = {"ray_actor_options": {"num_cpus": 0}, "graceful_shutdown_timeout_s": 0.1}
    scorer = deployment(Scorer, name=deployment_name(model), **options)
    gateway = deployment(Gateway, name="gateway", **options)
    name = f"test-{uuid.uuid4().hex[:12]}"
    target = serve.RunTarget(gateway.bind(scorer.bind()), name=name, route_prefix=f"/{name}")
    serve.run_many([target], wait_for_applications_running=False)
    try:
        yield name
    finally:
        serve.delete(name)


def test_a_model_that_hangs_while_it_loads_is_named_and_waited_for_no_longer(
    address: str,  # noqa: ARG001 - Serve runs
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("rankmill.cli.startup._REPORT_SECONDS", 0.5)  # of 10
    caplog.set_level(logging.INFO, "rankmill")
    with starting("ten/Slow-1", tmp_path / "up") as name:
        with pytest.raises(NoProgressError) as raised:
            wait_until_up(name, ["ten/Slow-1"], 2)
        assert "Not up after 2 s: the model 'ten/Slow-1'" in str(raised.value)
        assert "--start-timeout" in str(raised.value)
        assert raised.value.exit_code == 6
        assert "not up yet: the model 'ten/Slow-1'" in caplog.text
        (tmp_path / "up").touch()
        wait_until_up(name, ["ten/Slow-1"], 120)


def test_names_must_differ() -> None:
    with pytest.raises(ValueError, match="given to two models"):
        EndpointSettings(models=(ModelSettings(model="builtin"), ModelSettings(model="a/b", aliases=("builtin",))))
    with pytest.raises(ValueError, match="needs a --name"):
        EndpointSettings(model="http://127.0.0.1:9/score")
    with pytest.raises(ValueError, match="--max-length"):
        EndpointSettings(max_length=64, models=(ModelSettings(model="builtin"),))
    assert [model.public_name for model in EndpointSettings(model="/models/mine").served] == ["mine"]


def test_the_shipped_config_is_valid() -> None:
    from ray.serve import Application  # noqa: PLC0415
    from ray.serve.schema import ServeDeploySchema  # noqa: PLC0415

    config = yaml.safe_load((Path(__file__).parents[2] / "serve" / "config.yaml").read_text())
    deployed = ServeDeploySchema.model_validate(config)
    (application,) = deployed.applications
    module, _, name = application.import_path.partition(":")
    build = getattr(importlib.import_module(module), name)
    assert isinstance(build(EndpointSettings.model_validate(application.args)), Application)
    with pytest.raises(ValueError, match="extra"):
        EndpointSettings.model_validate({**application.args, "replica": 2})
