"""`POST /v1/search`: a first stage finds documents, a reranker orders them, and the answer has the scores of both.

Neither Ray nor HTTP here: the gateway parses the JSON, chooses the retriever and the model, and keeps the deadline.
"""

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from rankmill.errors import StorageError, UsageError
from rankmill.retrieval.filters import MAX_CHARACTERS
from rankmill.retrieval.retriever import MODES, Found, Mode, Retriever
from rankmill.serving.dialects.fields import Count, Text
from rankmill.serving.dialects.wire_format import checked
from rankmill.serving.request_error import Kind, RequestError
from rankmill.settings.gateway import GatewaySettings

RETRIEVED = 100
"""Documents of the first stage, unless the request says how many."""
RETURNED = 10
"""Documents of the answer, unless the request says how many."""
_RETRY_SECONDS = 5.0

Scalar = str | int | float | bool | None


class SearchBody(BaseModel):
    """What is sent. A null means the same as a field that is not there."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    query: Text = Field(description="what to search for; none of its characters is an operator")
    retrieve_k: Count | None = Field(None, description=f"documents of the first stage; null is {RETRIEVED}")
    rerank_k: Count | None = Field(None, description="of these, the best so many are reranked; null is all")
    top_k: Count | None = Field(None, description=f"give back the best so many; null is {RETURNED}")
    mode: Mode | None = Field(
        None, description="full text, vectors, or both fused; null is hybrid where the index has vectors, else sparse"
    )
    filter: Text | None = Field(None, max_length=MAX_CHARACTERS, description="which documents count: year >= 2020")
    model: Text | None = Field(None, description="name or alias of a configured reranker; null is the default one")


class SearchResult(BaseModel):
    """One document, with the scores of both stages."""

    document_id: str | int
    rank: int = Field(description="1 is best")
    score: float = Field(description="of the reranker, after the activation")
    logit: float = Field(description="of the reranker, before it")
    retrieval_score: float = Field(description="of the first stage")
    retrieval_rank: int = Field(description="in the first stage, 1 is best")
    title: str
    text: str
    truncated: bool = Field(description="whether the query or this document was cut before reranking")
    columns: dict[str, Scalar] = Field(description="what else the index stores")


class SearchTimings(BaseModel):
    """How long the stages took, in milliseconds."""

    retrieve: float
    rerank: float
    total: float


class SearchAnswer(BaseModel):
    """Documents, best first."""

    id: str
    object: Literal["search"] = "search"
    model: str
    model_revision: str
    mode: Mode
    retrieved: int = Field(description="documents that the first stage found")
    reranked: int = Field(description="documents that were reranked")
    results: list[SearchResult]
    timings_ms: SearchTimings


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search, checked, with every default in its place."""

    query: str
    retrieve_k: int
    rerank_k: int
    top_k: int
    mode: Mode
    filter: str | None
    model: str | None


@dataclass(frozen=True, slots=True)
class Reranked:
    """What the second stage says of `n` documents."""

    logits: NDArray[np.float32]
    """Shape (n,), in the order of the documents."""
    scores: NDArray[np.float32]
    """Shape (n,): after the activation."""
    truncated: NDArray[np.bool_]
    """Shape (n,): whether query or document was cut."""
    model: str
    """The name that the client used, or that of the default model."""
    revision: str


Rerank = Callable[[str, Sequence[str]], Awaitable[Reranked]]
"""Scores the documents of a query; there may be none."""


def parse_search(body: Any, modes: Sequence[Mode], settings: GatewaySettings) -> SearchRequest:
    """Check a body, as `strict_json.parse` gives it.

    Args:
        body: any JSON value.
        modes: what the retriever can do.
        settings: its limits hold: a search reranks no more documents, and reads no longer a query, than a request to
            rerank.

    Raises:
        RequestError: INVALID or UNKNOWN_FIELD, naming the field and both numbers.
    """
    asked = checked(SearchBody, body)
    if len(asked.query) > settings.max_query_characters:
        raise _invalid(
            "query",
            f"A query has {len(asked.query):,} characters; at most {settings.max_query_characters:,} are accepted.",
        )
    most = settings.max_documents
    for name in ("retrieve_k", "rerank_k", "top_k"):
        value = getattr(asked, name)
        if value is not None and value > most:
            raise _invalid(name, f"{name} is {value:,}; at most {most:,} documents are searched for at a time.")
    retrieve_k = asked.retrieve_k or max(min(RETRIEVED, most), asked.rerank_k or 1, asked.top_k or 1)
    rerank_k = asked.rerank_k or retrieve_k
    if rerank_k > retrieve_k:
        raise _invalid("rerank_k", f"rerank_k is {rerank_k:,}, but only {retrieve_k:,} documents are retrieved.")
    if asked.top_k is not None and asked.top_k > rerank_k:
        raise _invalid("top_k", f"top_k is {asked.top_k:,}, but only {rerank_k:,} documents are reranked.")
    mode: Mode = asked.mode or ("hybrid" if "hybrid" in modes else MODES[0])
    if mode not in modes:
        raise _invalid("mode", f"mode is {mode}; this index can be searched by {', '.join(modes)}.")
    top_k = min(asked.top_k or RETURNED, rerank_k)
    return SearchRequest(asked.query, retrieve_k, rerank_k, top_k, mode, asked.filter, asked.model)


async def search(
    request: SearchRequest, retriever: Retriever, rerank: Rerank, *, request_id: str, settings: GatewaySettings
) -> SearchAnswer:
    """Retrieve, rerank, and put both together.

    Cancelling it cancels the stage that runs. Documents longer than `max_document_characters` are cut there, as
    `truncated` says: an index may hold them, unlike a request.

    Args:
        request: as `parse_search` made it.
        retriever: the first stage.
        rerank: the second one, bound to the request's model.
        request_id: of the request.
        settings: as for `parse_search`.

    Raises:
        RequestError: INVALID (a filter that is none), UNAVAILABLE (the index cannot be read), INTERNAL (not one finite
            logit a document), or whatever `rerank` raises.
    """
    started = time.perf_counter()
    found = await retrieve(retriever, request.query, request.retrieve_k, request.mode, request.filter)
    retrieved = time.perf_counter()
    most = settings.max_document_characters
    texts = [full_text(found, i) for i in range(min(len(found), request.rerank_k))]
    cut = np.asarray([len(text) > most for text in texts], dtype=np.bool_)
    reranked = await rerank(request.query, [text[:most] for text in texts])
    if reranked.logits.shape != (len(texts),) or not np.isfinite(reranked.logits).all():
        raise RequestError(Kind.INTERNAL, f"The model {reranked.model!r} gave no usable scores.")
    order = np.argsort(-reranked.logits, kind="stable")[: request.top_k].tolist()
    ended = time.perf_counter()
    return SearchAnswer(
        id=request_id,
        model=reranked.model,
        model_revision=reranked.revision,
        mode=request.mode,
        retrieved=len(found),
        reranked=len(texts),
        results=[_result(found, reranked, cut, i, rank) for rank, i in enumerate(order, start=1)],
        timings_ms=SearchTimings(
            retrieve=_milliseconds(retrieved - started),
            rerank=_milliseconds(ended - retrieved),
            total=_milliseconds(ended - started),
        ),
    )


async def retrieve(retriever: Retriever, query: str, k: int, mode: Mode, where: str | None) -> Found:
    """The first stage, its errors as those of a request.

    Raises:
        RequestError: INVALID (a filter that is none) or UNAVAILABLE (the index cannot be read).
    """
    try:
        return await retriever.search(query, k, mode, where)
    except UsageError as error:  # its sentences hold nothing of the request
        raise _invalid("filter", str(error)) from error
    except StorageError as error:
        raise RequestError(
            Kind.UNAVAILABLE, "The index cannot be read at the moment.", retry_after=_RETRY_SECONDS
        ) from error


def full_text(found: Found, i: int) -> str:
    """A document as batch jobs score it: title and text."""
    return f"{found.titles[i]} {found.texts[i]}" if found.titles[i] else found.texts[i]


def scalar(value: Scalar) -> Scalar:
    """A stored value as JSON has it: NaN and infinities are null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _result(found: Found, reranked: Reranked, cut: NDArray[np.bool_], i: int, rank: int) -> SearchResult:
    return SearchResult(
        document_id=found.ids[i],
        rank=rank,
        score=float(reranked.scores[i]),
        logit=float(reranked.logits[i]),
        retrieval_score=found.scores[i],
        retrieval_rank=i + 1,
        title=found.titles[i],
        text=found.texts[i],
        truncated=bool(reranked.truncated[i] or cut[i]),
        columns={name: scalar(values[i]) for name, values in found.columns.items()},
    )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _invalid(field: str, message: str) -> RequestError:
    return RequestError(Kind.INVALID, message, field)
