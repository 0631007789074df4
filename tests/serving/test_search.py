"""`POST /v1/search` without HTTP: a real index on disk, the built-in reranker behind it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from rankmill.errors import StorageError
from rankmill.retrieval.corpus import open_corpus
from rankmill.retrieval.lance import open_lance
from rankmill.retrieval.lance_build import build
from rankmill.retrieval.retriever import MODES, Found, Mode
from rankmill.scoring.activation import activate
from rankmill.scoring.load import load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.scorer import Scorer
from rankmill.serving.request_error import Kind, RequestError
from rankmill.serving.search import Reranked, SearchAnswer, parse_search, search
from rankmill.settings.gateway import GatewaySettings
from rankmill.settings.storage import StorageSettings
from tests.retrieval.corpora import DOCUMENTS, embed, manifest_of, write_beir

SETTINGS = GatewaySettings(max_documents=200, max_query_characters=100)
TEXTS = {document["_id"]: f"{document['title']} {document['text']}".strip() for document in DOCUMENTS}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("search")
    corpus = open_corpus(str(write_beir(folder / "corpus.jsonl")), StorageSettings(), keep=("year",))
    manifest = manifest_of(corpus, "f" * 64)
    storage = StorageSettings()
    uri = str(folder / "index")
    asyncio.run(build(uri, corpus, manifest, embed, batch_documents=10, storage=storage, progress=lambda _: None))
    return uri


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return load_scorer(ScorerOptions())


def ask(index: str, scorer: Scorer, settings: GatewaySettings = SETTINGS, **body: Any) -> SearchAnswer:
    return ask_with(index, scorer, settings, body)


def ask_with(index: str, scorer: Scorer, settings: GatewaySettings, body: Any) -> SearchAnswer:
    async def rerank(query: str, documents: Sequence[str]) -> Reranked:
        pairs = scorer.encode([query] * len(documents), documents)
        logits = scorer.logits(pairs)
        scores = activate(logits, scorer.activation)
        return Reranked(logits, scores, pairs.truncated, "builtin", "r1")

    async def run() -> SearchAnswer:
        retriever = await open_lance(index, StorageSettings(), embed, "f" * 64)
        request = parse_search(body, retriever.modes, settings)
        return await search(request, retriever, rerank, request_id="rr-1", settings=settings)

    return asyncio.run(run())


@pytest.mark.parametrize("mode", [None, *MODES])
def test_both_stages_are_in_the_answer(index: str, scorer: Scorer, mode: Mode | None) -> None:
    query = "why do dogs bark at the postman"
    answer = ask(index, scorer, query=query, mode=mode)
    assert answer.mode == (mode or "hybrid")
    assert answer.retrieved == answer.reranked == len(answer.results)
    assert [result.rank for result in answer.results] == list(range(1, len(answer.results) + 1))
    logits = [result.logit for result in answer.results]
    assert logits == sorted(logits, reverse=True)
    assert answer.results[0].document_id == "dog"
    expected = scorer.logits(scorer.encode([query] * len(logits), [TEXTS[str(r.document_id)] for r in answer.results]))
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    by_first_stage = sorted(answer.results, key=lambda result: result.retrieval_rank)
    assert [result.retrieval_rank for result in by_first_stage] == list(range(1, len(logits) + 1))
    first_scores = [result.retrieval_score for result in by_first_stage]
    assert first_scores == sorted(first_scores, reverse=True)
    assert answer.results[0].columns == {"year": 2002}
    timings = answer.timings_ms
    assert timings.total == pytest.approx(timings.retrieve + timings.rerank, abs=0.01)


def test_the_numbers_of_each_stage_hold(index: str, scorer: Scorer) -> None:
    answer = ask(index, scorer, query="cats dogs", mode="dense", retrieve_k=4, rerank_k=3, top_k=2)
    assert (answer.retrieved, answer.reranked, len(answer.results)) == (4, 3, 2)
    assert max(result.retrieval_rank for result in answer.results) <= 3


def test_filters_hold(index: str, scorer: Scorer) -> None:
    answer = ask(index, scorer, query="cats dogs", filter="year < 2002")
    assert [result.document_id for result in answer.results] == ["cat"]


def test_nothing_found_is_an_answer(index: str, scorer: Scorer) -> None:
    answer = ask(index, scorer, query="?", mode="sparse")
    assert (answer.retrieved, answer.results) == (0, [])


def test_a_long_document_is_cut_and_says_so(index: str, scorer: Scorer) -> None:
    short = GatewaySettings(max_document_characters=20)
    answer = ask(index, scorer, short, query="cats", mode="sparse")
    assert {r.document_id: r.truncated for r in answer.results} == {"cat": True, "pet": True}
    assert answer.results[0].text in {document["text"] for document in DOCUMENTS}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], None),
        ({}, "query"),
        ({"query": 7}, "query"),
        ({"query": "x" * 101}, "query"),
        ({"query": "q", "retrieve_k": 0}, "retrieve_k"),
        ({"query": "q", "retrieve_k": 201}, "retrieve_k"),
        ({"query": "q", "retrieve_k": 1.5}, "retrieve_k"),
        ({"query": "q", "retrieve_k": 5, "rerank_k": 6}, "rerank_k"),
        ({"query": "q", "rerank_k": 5, "top_k": 6}, "top_k"),
        ({"query": "q", "retrieve_k": 5, "top_k": 6}, "top_k"),
        ({"query": "q", "top_k": 10**9}, "top_k"),
        ({"query": "q", "mode": "secret"}, "mode"),
        ({"query": "q", "filter": 1}, "filter"),
        ({"query": "q", "filter": "secret = 1"}, "filter"),
        ({"query": "q", "filter": "doc_id = 'secret"}, "filter"),
        ({"query": "q", "filter": "year = 1; drop table documents"}, "filter"),
        ({"query": "q", "secret": 1}, None),
    ],
)
def test_bad_requests_are_refused_without_an_echo(index: str, scorer: Scorer, body: Any, field: str | None) -> None:
    with pytest.raises(RequestError) as caught:
        ask_with(index, scorer, SETTINGS, body)
    assert caught.value.kind in {Kind.INVALID, Kind.UNKNOWN_FIELD}
    assert caught.value.field == field
    assert "secret" not in caught.value.message


def test_defaults() -> None:
    request = parse_search({"query": "q", "filter": None}, MODES, SETTINGS)
    assert (request.retrieve_k, request.rerank_k, request.top_k) == (100, 100, 10)
    assert request.mode == "hybrid"
    assert parse_search({"query": "q"}, MODES[:1], SETTINGS).mode == "sparse"
    assert parse_search({"query": "q", "rerank_k": 150}, MODES, SETTINGS).retrieve_k == 150
    assert parse_search({"query": "q"}, MODES, GatewaySettings(max_documents=5)).top_k == 5
    assert parse_search({"query": "q", "rerank_k": 5}, MODES, SETTINGS).top_k == 5
    with pytest.raises(RequestError, match=r"searched by sparse\."):
        parse_search({"query": "q", "mode": "dense"}, MODES[:1], SETTINGS)


class BrokenRetriever:
    """A store that cannot be read."""

    modes: tuple[Mode, ...] = MODES
    columns: tuple[str, ...] = ()

    async def search(self, query: str, k: int, mode: Mode, filter: str | None = None) -> Found:  # noqa: A002, ARG002
        raise StorageError("no credentials for s3://bucket")

    def within(self, seconds: float) -> Self:  # noqa: ARG002
        return self

    def close(self) -> None:
        pass


async def _unused(query: str, documents: Sequence[str]) -> Reranked:
    raise AssertionError(f"{query} was reranked with {len(documents)} documents")


def test_a_store_that_fails_is_unavailable() -> None:
    request = parse_search({"query": "q"}, MODES, SETTINGS)
    with pytest.raises(RequestError) as caught:
        asyncio.run(search(request, BrokenRetriever(), _unused, request_id="r", settings=SETTINGS))
    assert caught.value.kind is Kind.UNAVAILABLE
    assert caught.value.retry_after
    assert "bucket" not in caught.value.message


async def _nan(query: str, documents: Sequence[str]) -> Reranked:
    del query
    bad = np.full(len(documents), np.nan, dtype=np.float32)
    return Reranked(bad, bad, np.zeros(len(documents), dtype=np.bool_), "m", "r")


def test_scores_that_are_none_are_refused(index: str) -> None:
    async def run() -> None:
        retriever = await open_lance(index)
        request = parse_search({"query": "cats"}, retriever.modes, SETTINGS)
        await search(request, retriever, _nan, request_id="r", settings=SETTINGS)

    with pytest.raises(RequestError, match="no usable scores"):
        asyncio.run(run())


def test_a_path_is_not_part_of_an_answer(index: str, scorer: Scorer) -> None:
    assert str(Path(index).parent) not in ask(index, scorer, query="cats").model_dump_json()
