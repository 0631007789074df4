"""`POST /v1/pipelines/execute`: a search as a JSON list of stages, each a small function of documents.

    {"inputs": {"query": "wireless headphones", "year": 2020},
     "stages": [
       {"stage_id": "search", "parameters": {"query": "{{INPUT.query}}", "top_k": 100}},
       {"stage_id": "attribute_filter", "parameters": {"field": "year", "operator": "gte", "value": "{{INPUT.year}}"}},
       {"stage_id": "rerank", "parameters": {"inference_name": "builtin", "query": "{{INPUT.query}}", "top_k": 20}},
       {"stage_id": "limit", "parameters": {"limit": 10}}]}

`search` comes first and only there. A filter after it looks at what was found; `filter` of `search` itself looks at
the whole index. `inference_name` or `feature_uri` name a configured model.
"""

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import JsonValue

from rankmill.retrieval.retriever import Retriever
from rankmill.serving.dialects.wire_format import checked
from rankmill.serving.pipeline_bodies import (
    FilterParameters,
    LimitParameters,
    PipelineAnswer,
    PipelineBody,
    PipelineResult,
    RerankParameters,
    SearchParameters,
    Stage,
    StageReport,
)
from rankmill.serving.request_error import Kind, RequestError
from rankmill.serving.search import Rerank, Scalar, full_text, parse_search, retrieve, scalar
from rankmill.serving.templates import Templates
from rankmill.settings.gateway import GatewaySettings


@dataclass(frozen=True, slots=True)
class Document:
    """What flows from stage to stage."""

    id: str | int
    full_text: str
    score: float
    original_score: float
    fields: Mapping[str, Scalar]
    """`title`, `text` and what else the index stores."""
    rerank_position: int | None = None
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Around:
    """What stages work with."""

    retriever: Retriever
    rerank: Callable[[str | None], Rerank]
    """The reranker of a name, None is the default one; raises RequestError UNKNOWN_MODEL."""
    settings: GatewaySettings


def parse_pipeline(body: Any) -> PipelineBody:
    """Check a body, as `strict_json.parse` gives it, and fill in its templates.

    Raises:
        RequestError: INVALID, EMPTY or UNKNOWN_FIELD.
    """
    pipeline = checked(PipelineBody, body)
    for number, stage in enumerate(pipeline.stages):
        if (stage.stage_id == "search") != (number == 0):
            raise _invalid(f"stages[{number}].stage_id", "The first stage must be search, and no other.")
    templates = Templates(pipeline.inputs or {})
    stages = [stage.model_copy(update={"parameters": _parameters(stage, templates)}) for stage in pipeline.stages]
    return pipeline.model_copy(update={"stages": stages})


async def execute(pipeline: PipelineBody, around: Around, *, request_id: str) -> PipelineAnswer:
    """Run the stages one after the other.

    Args:
        pipeline: as `parse_pipeline` made it.
        around: what they work with.
        request_id: of the request.

    Raises:
        RequestError: as `search.search`, or UNKNOWN_MODEL.
    """
    documents: Sequence[Document] = ()
    reports = []
    for stage in pipeline.stages:
        started = time.perf_counter()
        documents = await _run(stage, documents, around)
        milliseconds = round((time.perf_counter() - started) * 1000, 3)
        reports.append(StageReport(stage_id=stage.stage_id, documents=len(documents), milliseconds=milliseconds))
    return PipelineAnswer(id=request_id, results=[_result(document) for document in documents], stages=reports)


async def _run(stage: Stage, documents: Sequence[Document], around: Around) -> Sequence[Document]:
    match stage.stage_id:
        case "search":
            return await _search(checked(SearchParameters, stage.parameters), around)
        case "attribute_filter":
            return attribute_filter(documents, checked(FilterParameters, stage.parameters))
        case "rerank":
            return await _rerank(documents, checked(RerankParameters, stage.parameters), around)
        case "limit":
            return documents[: checked(LimitParameters, stage.parameters).limit]


async def _search(asked: SearchParameters, around: Around) -> Sequence[Document]:
    body = {"query": asked.query, "retrieve_k": asked.top_k, "mode": asked.mode, "filter": asked.filter}
    request = parse_search(body, around.retriever.modes, around.settings)
    found = await retrieve(around.retriever, request.query, request.retrieve_k, request.mode, request.filter)
    return [
        Document(
            found.ids[i],
            full_text(found, i),
            found.scores[i],
            found.scores[i],
            {
                "title": found.titles[i],
                "text": found.texts[i],
                **{name: scalar(values[i]) for name, values in found.columns.items()},
            },
        )
        for i in range(len(found))
    ]


def attribute_filter(documents: Sequence[Document], asked: FilterParameters) -> Sequence[Document]:
    """Keep the documents whose field is as asked; values of different types are different, and in no order."""
    if (asked.operator == "in") != isinstance(asked.value, list):
        raise _invalid("value", "The operator in needs a list of values, every other one a single value.")
    if documents and asked.field not in documents[0].fields:
        raise _no_field("field", documents[0])
    passes = _test(asked)
    return [document for document in documents if passes(document.fields.get(asked.field))]


async def _rerank(documents: Sequence[Document], asked: RerankParameters, around: Around) -> Sequence[Document]:
    if asked.inference_name is not None and asked.feature_uri is not None:
        raise _invalid("feature_uri", "A rerank stage names its model once, by inference_name or by feature_uri.")
    if len(asked.query) > around.settings.max_query_characters:
        raise _invalid("query", f"A query has more than {around.settings.max_query_characters:,} characters.")
    most = around.settings.max_document_characters
    texts = [_text(document, asked.document_field) for document in documents]
    reranked = await around.rerank(asked.inference_name or asked.feature_uri)(
        asked.query, [text[:most] for text in texts]
    )
    if reranked.logits.shape != (len(texts),) or not np.isfinite(reranked.logits).all():
        raise RequestError(Kind.INTERNAL, f"The model {reranked.model!r} gave no usable scores.")
    order = np.argsort(-reranked.logits, kind="stable")[: asked.top_k].tolist()
    return [
        replace(
            documents[i],
            score=float(reranked.scores[i]),
            rerank_position=position,
            truncated=bool(reranked.truncated[i]) or len(texts[i]) > most,
        )
        for position, i in enumerate(order, start=1)
    ]


def _text(document: Document, field: str | None) -> str:
    if field is None:
        return document.full_text
    value = document.fields.get(field)
    if value is None and field not in document.fields:
        raise _no_field("document_field", document)
    return "" if value is None else str(value)


def _no_field(parameter: str, document: Document) -> RequestError:
    return _invalid(parameter, f"The index has no such field; it has {', '.join(document.fields)}.")


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}


def _test(asked: FilterParameters) -> Callable[[Scalar], bool]:
    wanted = asked.value
    if isinstance(wanted, list):
        among = frozenset(map(_typed, wanted))
        return lambda value: _typed(value) in among
    if asked.operator in {"eq", "ne"}:
        return lambda value: (_typed(value) == _typed(wanted)) == (asked.operator == "eq")
    compare = _COMPARISONS[asked.operator]
    return lambda value: _type(value) is _type(wanted) and compare(value, wanted)


def _typed(value: Scalar) -> tuple[type, Scalar]:
    """What makes values equal: all numbers can be, other values only those of their own type."""
    return _type(value), value


def _type(value: Scalar) -> type:
    return float if type(value) is int else type(value)


def _parameters(stage: Stage, templates: Templates) -> dict[str, JsonValue]:
    """Of a stage, with what templates stand for; the default query is written out for its own to be filled in."""
    given = {name: value for name, value in (stage.parameters or {}).items() if value is not None}
    if stage.stage_id in {"search", "rerank"}:
        given = {"query": "{{INPUT.query}}", **given}
    filled = {
        name: templates.fill_filter(value) if name == "filter" else templates.fill(value)
        for name, value in given.items()
    }
    return {name: value for name, value in filled.items() if value is not None}


def _result(document: Document) -> PipelineResult:
    return PipelineResult(
        document_id=document.id,
        score=document.score,
        original_score=document.original_score,
        rerank_position=document.rerank_position,
        truncated=document.truncated,
        fields=dict(document.fields),
    )


def _invalid(field: str, message: str) -> RequestError:
    return RequestError(Kind.INVALID, message, field)
