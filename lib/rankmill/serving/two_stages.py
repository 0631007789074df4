"""The routes that search an index before they rerank: what is sent there, what comes back, and what happens between."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from rankmill.retrieval.retriever import Retriever
from rankmill.serving.pipeline_bodies import PipelineAnswer, PipelineBody
from rankmill.serving.pipelines import Around, execute, parse_pipeline
from rankmill.serving.request_error import Kind, RequestError
from rankmill.serving.search import SearchAnswer, SearchBody, SearchRequest, parse_search, search


@dataclass(frozen=True, slots=True)
class TwoStages:
    """A route."""

    name: str
    """In metrics and logs, where a dialect's is otherwise."""
    summary: str
    """For OpenAPI."""
    request_model: type[BaseModel]
    response_model: type[BaseModel]
    parse: Callable[[Any, Around], Any]
    """A JSON value to what is asked for; takes the processor, of large bodies for long."""
    run: Callable[[Any, Around, str], Awaitable[BaseModel]]
    """What `parse` gave, what there is to search and rerank with, and the request's id, to an answer."""


def _parse_search(body: Any, around: Around) -> SearchRequest:
    return parse_search(body, around.retriever.modes, around.settings)


def _parse_pipeline(body: Any, around: Around) -> PipelineBody:
    del around
    return parse_pipeline(body)


async def _search(request: SearchRequest, around: Around, request_id: str) -> SearchAnswer:
    rerank = around.rerank(request.model)  # refuses an unknown model before anything is searched
    return await search(request, around.retriever, rerank, request_id=request_id, settings=around.settings)


async def _execute(pipeline: PipelineBody, around: Around, request_id: str) -> PipelineAnswer:
    return await execute(pipeline, around, request_id=request_id)


TWO_STAGES: Mapping[str, TwoStages] = {
    "/v1/search": TwoStages(
        "search",
        "Search the index of --index, and rerank what is found",
        SearchBody,
        SearchAnswer,
        _parse_search,
        _search,
    ),
    "/v1/pipelines/execute": TwoStages(
        "pipeline",
        "Search and rerank in stages: search, filter, rerank, limit",
        PipelineBody,
        PipelineAnswer,
        _parse_pipeline,
        _execute,
    ),
}
"""By path; all are POST."""


def there(retriever: Retriever | None) -> Retriever:
    """The retriever.

    Raises:
        RequestError: UNKNOWN_INDEX, where there is none.
    """
    if retriever is None:
        raise RequestError(
            Kind.UNKNOWN_INDEX, "There is no index to search here; `rankmill serve --index INDEX` serves one."
        )
    return retriever
