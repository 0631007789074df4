"""The routes that search an index before they rerank: what is sent there, what comes back, and what happens between."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from rankmill.retrieval.retriever import Retriever
from rankmill.serving.pipeline_bodies import PipelineAnswer, PipelineBody
from rankmill.serving.pipelines import Around, execute, parse_pipeline
from rankmill.serving.request_error import Kind, RequestError
from rankmill.serving.search import SearchAnswer, SearchBody, parse_search, search


@dataclass(frozen=True, slots=True)
class TwoStages:
    """A route."""

    name: str
    """In metrics and logs, where a dialect's is otherwise."""
    summary: str
    """For OpenAPI."""
    request_model: type[BaseModel]
    response_model: type[BaseModel]
    run: Callable[[Any, Around, str], Awaitable[BaseModel]]
    """A JSON value, what there is to search and rerank with, and the request's id, to an answer."""


async def _search(body: Any, around: Around, request_id: str) -> SearchAnswer:
    request = parse_search(body, around.retriever.modes, around.settings)
    rerank = around.rerank(request.model)  # refuses an unknown model before anything is searched
    return await search(request, around.retriever, rerank, request_id=request_id, settings=around.settings)


async def _execute(body: Any, around: Around, request_id: str) -> PipelineAnswer:
    return await execute(parse_pipeline(body), around, request_id=request_id)


TWO_STAGES: Mapping[str, TwoStages] = {
    "/v1/search": TwoStages(
        "search", "Search the index of --index, and rerank what is found", SearchBody, SearchAnswer, _search
    ),
    "/v1/pipelines/execute": TwoStages(
        "pipeline", "Search and rerank in stages: search, filter, rerank, limit", PipelineBody, PipelineAnswer, _execute
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
