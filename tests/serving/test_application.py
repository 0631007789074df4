"""The application on a real Ray Serve, over a real socket."""

import asyncio
import importlib
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from rankmill.scoring.activation import activate
from rankmill.serving.backend import OtherVersionError
from rankmill.serving.request_error import Kind, RequestError
from rankmill.settings.serve import EndpointSettings, ModelSettings, deployment_name
from tests.serving.endpoint import BODY, Running, deploy, serve_started
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
