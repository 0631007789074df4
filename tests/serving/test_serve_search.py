"""An index as a deployment of its own, on a real Ray Serve."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from rankmill.cli.main import main
from rankmill.serving.index import index_of, open_index
from rankmill.settings.serve import EndpointSettings
from tests.retrieval.corpora import write_beir
from tests.scoring.tiny_embedders import save_bi_encoder
from tests.serving.endpoint import Running, deploy, serve_started, wait_for_replicas
from tests.tiny_models import save_tiny_model

pytestmark = pytest.mark.slow

QUERY = "why do dogs bark at the postman"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("index")
    uri, corpus = str(folder / "index"), str(write_beir(folder / "corpus.jsonl"))
    model = str(save_bi_encoder(folder / "model"))
    assert main(["index", "--corpus", corpus, "--index", uri, "--model", model, "--keep", "year", "--quiet"]) == 0
    return uri


@pytest.fixture(scope="module")
def running(local_ray: None, index: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:  # noqa: ARG001 - Serve runs on it
    model = str(save_tiny_model(tmp_path_factory.mktemp("model"), "bert"))
    with serve_started() as address:
        yield deploy(address, model=model, index=index, timeout_seconds=150)


@pytest.mark.parametrize("mode", ["sparse", "dense", "hybrid"])
def test_a_search_finds_what_the_bare_index_finds(running: Running, index: str, mode: str) -> None:
    status, answer = running.post("/v1/search", {"query": QUERY, "mode": mode, "filter": "year >= 2001"})
    assert status == 200, answer
    info = index_of(EndpointSettings(index=index))
    assert info is not None

    async def bare() -> list[str | int]:
        retriever = await open_index(info)
        return list((await retriever.search(QUERY, 100, mode, "year >= 2001")).ids)  # type: ignore[arg-type]

    found = sorted(answer["results"], key=lambda result: result["retrieval_rank"])
    assert [result["document_id"] for result in found] == asyncio.run(bare())


def test_a_filter_that_is_none_is_the_clients_mistake(running: Running) -> None:
    status, answer = running.post("/v1/search", {"query": QUERY, "filter": "colour = 'red'"})
    assert status == 400
    assert "it has doc_id, title, year" in answer["error"]["message"]


def test_searches_go_on_after_its_replica_died(running: Running) -> None:
    (pid,) = wait_for_replicas(running.name, deployment="retriever")
    os.kill(pid, signal.SIGKILL)
    wait_for_replicas(running.name, {pid}, deployment="retriever")
    pipeline = {
        "inputs": {"query": QUERY},
        "stages": [{"stage_id": "search"}, {"stage_id": "rerank", "parameters": {"top_k": 2}}],
    }
    status, answer = running.post("/v1/pipelines/execute", pipeline)
    assert status == 200, answer
    assert [result["rerank_position"] for result in answer["results"]] == [1, 2]
