"""`/v1/search` and `/v1/pipelines/execute` over HTTP: a real server, a real index, the built-in reranker."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from rankmill.cli.main import main
from rankmill.errors import UsageError
from rankmill.retrieval.retriever import MODES
from rankmill.scoring.engines.choose import concrete
from rankmill.scoring.load import check_model
from rankmill.scoring.options import ScorerOptions
from rankmill.serving.backend import ModelInfo
from rankmill.serving.index import IndexInfo, index_of, open_index
from rankmill.settings.gateway import GatewaySettings
from rankmill.settings.serve import EndpointSettings
from tests.retrieval.corpora import write_beir
from tests.scoring.tiny_embedders import save_bi_encoder
from tests.serving.live import Answer, Live, eventually, live, tiny

QUERY = "why do dogs bark at the postman"
SEARCH, PIPELINE = "/v1/search", "/v1/pipelines/execute"
MOST_TOKENS = 500


@pytest.fixture(scope="module")
def bi_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_bi_encoder(tmp_path_factory.mktemp("bi-encoder")))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, bi_encoder: str) -> str:
    folder = tmp_path_factory.mktemp("index")
    uri = str(folder / "index")
    corpus = str(write_beir(folder / "corpus.jsonl"))
    assert main(["index", "--corpus", corpus, "--index", uri, "--model", bi_encoder, "--keep", "year", "--quiet"]) == 0
    return uri


@pytest.fixture(scope="module")
def info(index: str) -> IndexInfo:
    found = index_of(EndpointSettings(index=index))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def server(info: IndexInfo) -> Iterator[Live]:
    retriever = asyncio.run(open_index(info))
    settings = GatewaySettings(max_documents=50, max_query_characters=100, max_request_tokens=MOST_TOKENS)
    with live(settings, builtin(), retriever=retriever) as running:
        yield running
    retriever.close()


def builtin() -> ModelInfo:
    options = concrete(ScorerOptions(threads=1, device="cpu"))
    return ModelInfo(name="builtin", aliases=("usual",), card=check_model(options), options=options, default=True)


def stages(*more: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    return {"inputs": {"query": QUERY, **inputs}, "stages": [{"stage_id": "search"}, *more]}


def counted(server: Live, line: str, value: float) -> bool:
    return server.metric(line) == value


def refused(answer: Answer) -> tuple[int, str]:
    assert QUERY.encode() not in answer.body
    return answer.status, str(answer.json["error"]["message"])


def test_what_is_known_of_an_index_before_it_is_opened(info: IndexInfo, bi_encoder: str) -> None:
    assert info.modes == MODES
    assert {"doc_id", "title", "year"} <= set(info.columns)
    assert info.embedder is not None
    assert info.embedder.model == bi_encoder


LOST = """
    import asyncio, shutil, sys
    from rankmill.serving.deployments import RetrieverDeployment
    from rankmill.serving.index import index_of
    from rankmill.settings.serve import EndpointSettings

    async def search(info):
        replica = RetrieverDeployment.__new__(RetrieverDeployment)
        await replica.__init__(info)
        shutil.rmtree(sys.argv[1])
        print(type(await replica.search("canary words", 3, "sparse", None)).__name__)

    asyncio.run(search(index_of(EndpointSettings(index=sys.argv[1]))))
"""


@pytest.mark.slow
def test_why_an_index_cannot_be_read_is_in_the_log_and_the_query_is_not(index: str, tmp_path: Path) -> None:
    copy = shutil.copytree(index, tmp_path / "index")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LOST), str(copy)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "lib")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["StorageError"]
    (line,) = [json.loads(line) for line in done.stderr.splitlines() if "the index cannot be read" in line]
    assert line["level"] == "error"
    assert line["error"].endswith("Error")
    assert any("lance" in place for place in line["where"])
    assert "canary" not in done.stderr


@pytest.mark.parametrize("mode", [None, *MODES])
def test_search(server: Live, mode: str | None) -> None:
    answer = server.post({"query": QUERY, "mode": mode, "model": "usual"}, SEARCH)
    assert answer.status == 200, answer.body
    found = answer.json
    assert found["mode"] == (mode or "hybrid")
    assert found["id"] == answer.headers["x-request-id"]
    assert found["model"] == "usual"
    assert answer.headers["x-model"] == "builtin"
    assert found["results"][0]["document_id"] == "dog"
    assert found["results"][0]["columns"] == {"year": 2002}
    texts = [f"{result['title']} {result['text']}".strip() for result in found["results"]]
    alone = server.post({"query": QUERY, "documents": texts, "return_logits": True}).json["results"]
    assert [result["logit"] for result in found["results"]] == pytest.approx([r["logit"] for r in alone], abs=1e-4)
    assert [result["score"] for result in found["results"]] == pytest.approx(
        [r["relevance_score"] for r in alone], abs=1e-4
    )
    assert [phase.split(";")[0] for phase in answer.headers["server-timing"].split(", ")] == [
        "read",
        "retrieve",
        "prepare",
        "score",
        "render",
    ]


def test_pairs_that_were_known_are_told_of(server: Live) -> None:
    """The cache keeps what an earlier search has scored."""
    body = {"query": "wind and waves", "mode": "sparse"}
    asked = [server.post(body, SEARCH) for _ in range(2)]
    assert [answer.headers["x-cached-pairs"] for answer in asked] == ["0", str(asked[1].json["reranked"])]
    assert asked[1].json["reranked"] > 0


def test_a_filter_counts_before_the_search_and_may_leave_nothing(server: Live) -> None:
    found = server.post({"query": QUERY, "mode": "dense", "filter": "year > 2002", "retrieve_k": 2}, SEARCH).json
    assert {result["document_id"] for result in found["results"]} == {"car", "sea"}
    nothing = server.post({"query": "xylophone", "mode": "sparse"}, SEARCH)
    assert nothing.status == 200
    assert nothing.json["results"] == []
    assert nothing.json["model"] == "builtin"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "JSON"),
        ({}, 400, "query is missing"),
        ({"query": QUERY, "limit": 3}, 400, "field"),
        ({"query": QUERY, "retrieve_k": 51}, 400, "at most 50"),
        ({"query": QUERY, "filter": "colour = 'red'"}, 400, "it has doc_id, title, year"),
        ({"query": QUERY, "model": "canary"}, 404, "there are builtin, usual"),
    ],
)
def test_what_is_no_search(server: Live, body: Any, status: int, words: str) -> None:
    found = refused(server.post(body, SEARCH))
    assert found[0] == status
    assert words in found[1]


def test_other_methods_are_refused(server: Live) -> None:
    answer = server.ask("GET", SEARCH)
    assert answer.status == 405
    assert answer.headers["allow"] == "POST"


def test_pipeline(server: Live) -> None:
    answer = server.post(
        stages(
            {
                "stage_id": "attribute_filter",
                "parameters": {"field": "year", "operator": "lte", "value": "{{INPUT.y}}"},
            },
            {"stage_id": "rerank", "parameters": {"inference_name": "usual", "top_k": 2}},
            {"stage_id": "limit", "parameters": {"limit": 1}},
            y=2002,
        ),
        PIPELINE,
    )
    assert answer.status == 200, answer.body
    (result,) = answer.json["results"]
    assert result["document_id"] == "dog"
    assert result["rerank_position"] == 1
    assert [stage["documents"] for stage in answer.json["stages"]] == [5, 2, 2, 1]
    unknown = server.post(stages({"stage_id": "rerank", "parameters": {"inference_name": "canary"}}), PIPELINE)
    assert refused(unknown)[0] == 404
    assert "first stage must be search" in refused(server.post({"stages": [{"stage_id": "limit"}]}, PIPELINE))[1]


def test_all_stages_of_a_pipeline_share_the_limit_of_tokens(server: Live) -> None:
    line = 'rankmill_tokens_total{model="builtin"}'
    before = server.metric(line)
    assert server.post(stages({"stage_id": "rerank"}), PIPELINE).status == 200
    each = int(server.metric(line) - before)
    fitting = MOST_TOKENS // each
    assert 1 <= fitting < 15
    assert server.post(stages(*[{"stage_id": "rerank"}] * fitting), PIPELINE).status == 200
    status, message = refused(server.post(stages(*[{"stage_id": "rerank"}] * (fitting + 1)), PIPELINE))
    assert status == 400
    assert f"have {(fitting + 1) * each} tokens; at most {MOST_TOKENS} are accepted" in message


def test_metrics_name_the_routes(server: Live) -> None:
    for path, name, body in ((SEARCH, "search", {"query": QUERY}), (PIPELINE, "pipeline", stages())):
        model = "builtin" if name == "search" else "other"
        line = f'rankmill_requests_total{{dialect="{name}",model="{model}",route="{path}",status="2xx"}}'
        before = server.metric(line)
        assert server.post(body, path).status == 200
        eventually(partial(counted, server, line, before + 1))


def test_the_deadline_holds(server: Live) -> None:
    server.backend.open.clear()
    try:
        answer = server.post({"query": QUERY}, SEARCH, {"X-Request-Timeout-Ms": "300"})
    finally:
        server.backend.open.set()
    assert answer.status == 504


def test_a_client_that_leaves_ends_the_search(server: Live) -> None:
    before = server.backend.cancelled
    server.backend.open.clear()
    try:
        body = b'{"query": "dogs"}'
        with server.connect() as connection:
            head = f"POST {SEARCH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            eventually(lambda: server.backend.waiting == 1)
        eventually(lambda: server.backend.cancelled == before + 1)
    finally:
        server.backend.open.set()


@pytest.mark.parametrize("path", [SEARCH, PIPELINE])
def test_answers_are_as_described(server: Live, path: str) -> None:
    description = server.ask("GET", "/openapi.json").json
    responses = description["paths"][path]["post"]["responses"]
    good = {"query": QUERY} if path == SEARCH else stages({"stage_id": "rerank"})
    for body in (good, {}, b"{"):
        answer = server.post(body, path)
        schema = responses[str(answer.status)]["content"]["application/json"]["schema"]
        Draft202012Validator({**schema, "components": description["components"]}).validate(answer.json)


def test_without_an_index(tmp_path: Path) -> None:
    with live(GatewaySettings(), tiny(tmp_path)) as running:
        for path in (SEARCH, PIPELINE):
            status, message = refused(running.post({"query": QUERY}, path))
            assert status == 404
            assert "--index" in message
        assert not {SEARCH, PIPELINE} & set(running.ask("GET", "/openapi.json").json["paths"])  # the page goes by this


def test_keys_are_asked_for(info: IndexInfo, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("k" * 32 + "\n")
    retriever = asyncio.run(open_index(replace(info, embedder=None)))
    with live(GatewaySettings(keys_file=str(tmp_path / "keys")), builtin(), retriever=retriever) as running:
        assert running.post({"query": QUERY}, SEARCH).status == 401
        answer = running.post({"query": QUERY}, SEARCH, {"Authorization": "Bearer " + "k" * 32})
        assert answer.json["mode"] == "sparse"
        dense = running.post({"query": QUERY, "mode": "dense"}, SEARCH, {"Authorization": "Bearer " + "k" * 32})
        assert "searched by sparse" in refused(dense)[1]


def test_another_model_than_that_of_the_vectors(index: str, tmp_path: Path) -> None:
    other = str(save_bi_encoder(tmp_path / "other", pooling="cls"))
    with pytest.raises(UsageError, match="fingerprint"):
        index_of(EndpointSettings(index=index, index_model=other))
    with pytest.raises(ValueError, match="needs the --index"):
        EndpointSettings(index_model=other)
