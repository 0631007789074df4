"""`POST /v1/pipelines/execute` without HTTP: a real index on disk, the built-in reranker behind it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rankmill.retrieval.corpus import open_corpus
from rankmill.retrieval.lance import open_lance
from rankmill.retrieval.lance_build import build
from rankmill.scoring.activation import activate
from rankmill.scoring.load import load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.scorer import Scorer
from rankmill.serving.pipeline_bodies import PipelineAnswer
from rankmill.serving.pipelines import Around, execute, parse_pipeline
from rankmill.serving.request_error import Kind, RequestError
from rankmill.serving.search import Rerank, Reranked
from rankmill.serving.templates import MOST_CHARACTERS, Templates
from rankmill.settings.gateway import GatewaySettings
from rankmill.settings.storage import StorageSettings
from tests.retrieval.corpora import DOCUMENTS, embed, manifest_of, write_beir

STORAGE = StorageSettings()
SEARCH = {"stage_id": "search", "parameters": {"mode": "dense"}}
TEXTS = {document["_id"]: f"{document['title']} {document['text']}".strip() for document in DOCUMENTS}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pipelines")
    corpus = open_corpus(str(write_beir(folder / "corpus.jsonl")), STORAGE, keep=("year",))
    manifest = manifest_of(corpus, "f" * 64)
    uri = str(folder / "index")
    asyncio.run(build(uri, corpus, manifest, embed, batch_documents=10, storage=STORAGE, progress=lambda _: None))
    return uri


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return load_scorer(ScorerOptions())


def _among(count: int) -> dict[str, Any]:
    return {"field": "year", "operator": "in", "value": [*range(count)]}


def run(index: str, scorer: Scorer, *stages: Any, **inputs: Any) -> PipelineAnswer:
    async def rerank(query: str, documents: Sequence[str]) -> Reranked:
        pairs = scorer.encode([query] * len(documents), documents)
        logits = scorer.logits(pairs)
        return Reranked(logits, activate(logits, scorer.activation), pairs.truncated, "builtin", "r1")

    def of_name(name: str | None) -> Rerank:
        if name not in {None, "builtin"}:
            raise RequestError(Kind.UNKNOWN_MODEL, "There is no such model here; there are builtin.", "model")
        return rerank

    async def go() -> PipelineAnswer:
        retriever = await open_lance(index, STORAGE, embed, "f" * 64)
        pipeline = parse_pipeline({"inputs": {"query": "why do dogs bark", **inputs}, "stages": list(stages)})
        return await execute(pipeline, Around(retriever, of_name, GatewaySettings()), request_id="rr-1")

    return asyncio.run(go())


def test_the_whole_list(index: str, scorer: Scorer) -> None:
    answer = run(
        index,
        scorer,
        SEARCH,
        {"stage_id": "attribute_filter", "parameters": {"field": "year", "operator": "gte", "value": "{{INPUT.year}}"}},
        {"stage_id": "rerank", "stage_type": "sort", "parameters": {"inference_name": "builtin", "top_k": 2}},
        {"stage_id": "limit", "parameters": {"limit": 1}},
        year=2002,
    )
    assert [(report.stage_id, report.documents) for report in answer.stages] == [
        ("search", 5),
        ("attribute_filter", 3),
        ("rerank", 2),
        ("limit", 1),
    ]
    (best,) = answer.results
    assert (best.document_id, best.rerank_position) == ("dog", 1)
    logit = scorer.logits(scorer.encode(["why do dogs bark"], [TEXTS["dog"]]))
    assert best.score == pytest.approx(float(activate(logit, scorer.activation)[0]), abs=1e-5)
    expected = float(embed(["why do dogs bark"])[0] @ embed([TEXTS["dog"]])[0])
    assert best.original_score == pytest.approx(expected, abs=1e-6)
    assert best.fields == {"title": "Dogs", "text": DOCUMENTS[1]["text"], "year": 2002}


def test_without_a_reranking_scores_are_the_searchs(index: str, scorer: Scorer) -> None:
    for result in run(index, scorer, SEARCH).results:
        assert result.score == result.original_score
        assert result.rerank_position is None


def test_every_null_is_as_if_it_were_not_there(index: str, scorer: Scorer) -> None:
    filtered = {"field": "year", "value": 2002}
    nulls = [
        {"stage_id": "search", "parameters": {"query": None, "top_k": None, "mode": None, "filter": None}},
        {"stage_id": "attribute_filter", "parameters": {**filtered, "operator": None}},
        {
            "stage_id": "rerank",
            "parameters": {"inference_name": "{{INPUT.none}}", "query": None, "document_field": None},
        },
        {"stage_id": "limit", "parameters": None},
    ]
    without = [
        {"stage_id": "search"},
        {"stage_id": "attribute_filter", "parameters": filtered},
        {"stage_id": "rerank"},
        {"stage_id": "limit"},
    ]
    answer = run(index, scorer, *nulls, none=None)
    assert len(answer.results) > 0
    assert answer.results == run(index, scorer, *without).results


@pytest.mark.parametrize("name", ["inference_name", "feature_uri"])
def test_a_model_is_named_either_way(index: str, scorer: Scorer, name: str) -> None:
    run(index, scorer, SEARCH, {"stage_id": "rerank", "parameters": {name: "builtin"}})
    with pytest.raises(RequestError) as caught:
        run(index, scorer, SEARCH, {"stage_id": "rerank", "parameters": {name: "other"}})
    assert caught.value.kind is Kind.UNKNOWN_MODEL


def test_one_field_can_be_reranked(index: str, scorer: Scorer) -> None:
    stage = {"stage_id": "rerank", "parameters": {"document_field": "title", "query": "about {{INPUT.what}}"}}
    answer = run(index, scorer, SEARCH, stage, what="cars")
    titles = [str(result.fields["title"]) for result in answer.results]
    logits = scorer.logits(scorer.encode(["about cars"] * 5, titles))
    assert logits.tolist() == sorted(logits.tolist(), reverse=True)
    scores = activate(logits, scorer.activation)
    np.testing.assert_allclose([result.score for result in answer.results], scores, atol=1e-5)


@pytest.mark.parametrize(
    ("operator", "value", "kept"),
    [
        ("eq", 2001, {"cat"}),
        ("eq", 2001.0, {"cat"}),
        ("eq", "2001", set()),
        ("eq", True, set()),
        ("ne", 2001, {"dog", "pet", "car", "sea"}),
        ("lt", 2002, {"cat"}),
        ("lte", 2002, {"cat", "dog"}),
        ("gt", 2004, {"sea"}),
        ("gte", 2004, {"car", "sea"}),
        ("gt", "a", set()),
        ("in", [2001, 2005, "x"], {"cat", "sea"}),
        ("in", [2001.0, True, "2005"], {"cat"}),
        ("in", [*range(2002, 12_002)], {"dog", "car", "sea"}),
    ],
)
def test_attribute_filters(index: str, scorer: Scorer, operator: str, value: Any, kept: set[str]) -> None:
    parameters = {"field": "year", "operator": operator, "value": value}
    answer = run(index, scorer, SEARCH, {"stage_id": "attribute_filter", "parameters": parameters})
    assert {result.document_id for result in answer.results} == kept


@pytest.mark.parametrize(
    "stages",
    [
        [],
        [{"stage_id": "limit"}],
        [SEARCH, SEARCH],
        [{"stage_id": "secret"}],
        [SEARCH, {"stage_id": "limit", "parameters": {"limit": 0}}],
        [SEARCH, {"stage_id": "limit", "parameters": {"secret": 1}}],
        [SEARCH, {"stage_id": "rerank", "parameters": {"query": "{{INPUT.secret}}"}}],
        [SEARCH, {"stage_id": "rerank", "parameters": {"query": "a {{INPUT.list}}"}}],
        [SEARCH, {"stage_id": "rerank", "parameters": {"query": "{{INPUT.list}}"}}],
        [SEARCH, {"stage_id": "rerank", "parameters": {"document_field": "secret"}}],
        [SEARCH, {"stage_id": "attribute_filter", "parameters": {"field": "year", "operator": "in", "value": 1}}],
        [SEARCH, {"stage_id": "attribute_filter", "parameters": {"field": "secret", "value": 1}}],
        [SEARCH, {"stage_id": "attribute_filter", "parameters": _among(10_001)}],
        [SEARCH, {"stage_id": "rerank", "parameters": {"inference_name": "builtin", "feature_uri": "builtin"}}],
        [{"stage_id": "search", "parameters": {"filter": "secret = 1"}}],
        [{"stage_id": "search", "parameters": {"top_k": 10**6}}],
        [SEARCH, *[{"stage_id": "limit"}] * 16],
    ],
)
def test_bad_pipelines_are_refused_without_an_echo(index: str, scorer: Scorer, stages: list[Any]) -> None:
    with pytest.raises(RequestError) as caught:
        run(index, scorer, *stages, list=["secret"])
    assert caught.value.kind in {Kind.INVALID, Kind.EMPTY, Kind.UNKNOWN_FIELD}
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("stage", ["search", "rerank"])
def test_a_query_that_is_null_is_missing(index: str, scorer: Scorer, stage: str) -> None:
    stages = [{"stage_id": "search", "parameters": {"query": "dogs", "mode": "dense"}}, {"stage_id": stage}]
    with pytest.raises(RequestError, match="query is missing"):
        run(index, scorer, *stages[stage == "search" :], query=None)


def test_templates() -> None:
    templates = Templates({"a": "x", "n": 3, "o": {"k": "{{INPUT.a}}"}})
    assert templates.fill(["{{INPUT.n}}", "{{ INPUT.a }}-{{INPUT.n}}", {"q": "{{INPUT.a}}"}, 7]) == [
        3,
        "x-3",
        {"q": "x"},
        7,
    ]
    assert templates.fill("{{INPUT.o}}") == {"k": "{{INPUT.a}}"}  # an input is no template
    assert templates.fill("{{OTHER.a}} {INPUT.a}") == "{{OTHER.a}} {INPUT.a}"


@pytest.mark.parametrize(
    ("filter_", "given", "kept"),
    [
        ("year = 2002", None, {"dog"}),
        ("title = '{{INPUT.x}}'", "Dogs", {"dog"}),
        ("title = {{INPUT.x}}", "Dogs", {"dog"}),
        ("title = '{{INPUT.x}}'", "o'hara", set()),
        ("title = '{{INPUT.x}}'", "x' OR title != 'zz", set()),
        ("title = {{INPUT.x}}", "x' OR title != 'zz", set()),
        ("title != 'it''s' and title = '{{INPUT.x}}'", "x' OR title != 'zz", set()),
        ("title != 'it''s' and title = {{INPUT.x}}", "Dogs", {"dog"}),
        ("title LIKE '{{INPUT.x}}%'", "Do", {"dog"}),
        ("year >= {{INPUT.x}}", 2005, {"sea"}),
        ("doc_id in ('{{INPUT.x}}', {{INPUT.x}}, 'sea')", "cat", {"cat", "sea"}),
        ("{{INPUT.x}}", None, {"cat", "dog", "pet", "car", "sea"}),
    ],
)
def test_an_input_in_a_filter_is_a_literal(
    index: str, scorer: Scorer, filter_: str, given: Any, kept: set[str]
) -> None:
    search = {"stage_id": "search", "parameters": {"filter": filter_, "mode": "dense"}}
    assert {result.document_id for result in run(index, scorer, search, x=given).results} == kept


@pytest.mark.parametrize(
    ("filter_", "given"),
    [
        ("{{INPUT.x}}", "year = 2002"),
        ("year = {{INPUT.x}}", "2002 OR year > 0"),
        ("{{INPUT.x}} = 2002", "year"),
        ("title = '{{INPUT.x}}'", ["Dogs"]),
        ("title = '{{INPUT.x}}'", None),
        ("year = {{INPUT.x}}", True),
    ],
)
def test_an_input_is_no_other_part_of_a_filter(index: str, scorer: Scorer, filter_: str, given: Any) -> None:
    with pytest.raises(RequestError) as caught:
        run(index, scorer, {"stage_id": "search", "parameters": {"filter": filter_}}, x=given)
    assert caught.value.kind is Kind.INVALID


def test_booleans_of_a_filter_are_words() -> None:
    assert (
        Templates({"x": True, "y": -1.5}).fill_filter("a = {{INPUT.x}} or b < {{INPUT.y}}")
        == "a =  TRUE  or b <  -1.5 "
    )


def test_a_small_body_does_not_grow_by_its_templates() -> None:
    templates = Templates({"long": "x" * (MOST_CHARACTERS // 10)})
    assert len(str(templates.fill("{{INPUT.long}} " * 9))) > MOST_CHARACTERS // 2
    with pytest.raises(RequestError, match="1,000,000 characters"):
        templates.fill(["{{INPUT.long}}!"] * 2)
