"""`rankmill index`, then `rankmill serve --index`: an index on S3, and one in Milvus, searched over HTTP."""

import asyncio
import json
import os
import signal
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest

from rankmill.cli.main import main
from rankmill.retrieval.retriever import MODES
from rankmill.serving.index import index_of, open_index
from rankmill.settings.serve import EndpointSettings
from tests.retrieval.corpora import write_beir
from tests.s3_server import s3_environment
from tests.scoring.tiny_embedders import save_bi_encoder
from tests.serving.served import Server, serving
from tests.tiny_models import save_tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # of pymilvus' own dependencies

QUERY = "why do dogs bark at the postman"
FILTER = "year >= 2001"


@dataclass(frozen=True, slots=True)
class Searching:
    """A server, and what its index gave before the server had it: only one process can open Milvus Lite's file."""

    server: Server
    bare: dict[str, list[str | int]]
    """Ids by mode."""

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and body of an answer."""
        data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(self.server.url + path, data, kind)  # noqa: S310 - our own address
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=180) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())


@pytest.fixture(scope="module", params=["s3", "milvus"])
def running(
    request: pytest.FixtureRequest, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Searching]:
    folder = tmp_path_factory.mktemp("index")
    corpus, model = str(write_beir(folder / "corpus.jsonl")), str(save_bi_encoder(folder / "embedder"))
    reranker = str(save_tiny_model(folder / "tiny", "bert"))
    environment = s3_environment(s3_endpoint)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        uri, more = str(folder / "index.db"), ["--index-model", model]  # a Milvus does not say which model it was
        if request.param == "s3":
            bucket = f"search-{uuid.uuid4().hex}"
            client = boto3.client("s3")
            client.create_bucket(Bucket=bucket)
            client.close()
            uri, more = f"s3://{bucket}/index", []
        else:
            pytest.importorskip("milvus_lite")
        assert main(["index", "--corpus", corpus, "--index", uri, "--model", model, "--keep", "year", "--quiet"]) == 0
        bare = asyncio.run(search_all(EndpointSettings(index=uri, index_model=more[-1] if more else None)))
    arguments = ["--model", reranker, "--index", uri, *more, "--timeout-seconds", "150"]
    environment["RAY_raylet_start_wait_time_s"] = "120"  # of 30, which busy machines exceed
    with serving(arguments, folder, environment) as server:
        yield Searching(server, bare)


async def search_all(settings: EndpointSettings) -> dict[str, list[str | int]]:
    """What the bare index finds, by mode."""
    info = await asyncio.to_thread(index_of, settings)
    assert info is not None
    retriever = await open_index(info)
    try:
        return {mode: list((await retriever.search(QUERY, 100, mode, FILTER)).ids) for mode in MODES}
    finally:
        retriever.close()


def test_a_search_finds_what_the_bare_index_finds(running: Searching) -> None:
    for mode in MODES:
        status, answer = running.post("/v1/search", {"query": QUERY, "mode": mode, "filter": FILTER})
        assert status == 200, answer
        found = sorted(answer["results"], key=lambda result: result["retrieval_rank"])
        assert [result["document_id"] for result in found] == running.bare[mode]
        assert len(found) >= 1
        logits = [result["logit"] for result in answer["results"]]
        assert logits == sorted(logits, reverse=True)


def test_a_filter_that_is_none_is_the_clients_mistake(running: Searching) -> None:
    status, answer = running.post("/v1/search", {"query": QUERY, "filter": "colour = 'red'"})
    assert status == 400
    assert "it has doc_id, title, year" in answer["error"]["message"]


def test_searches_go_on_after_its_replica_died(running: Searching) -> None:
    (pid,) = running.server.wait_for_replicas("retriever")
    os.kill(pid, signal.SIGKILL)
    running.server.wait_for_replicas("retriever", {pid})
    pipeline = {
        "inputs": {"query": QUERY},
        "stages": [{"stage_id": "search"}, {"stage_id": "rerank", "parameters": {"top_k": 2}}],
    }
    status, answer = running.post("/v1/pipelines/execute", pipeline)
    assert status == 200, answer
    assert [result["rerank_position"] for result in answer["results"]] == [1, 2]
