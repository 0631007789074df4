"""Cohere's own clients, whichever version is installed."""

import asyncio

import cohere
from task import BUSY, DOCUMENTS, KEY, MODEL, QUERY, URL, N, case, refusal

ONCE = {"max_retries": 0}


def of_cohere(answer):
    return [(found.index, found.relevance_score) for found in answer.results]


@case("cohere ClientV2", "cohere")
def v2():
    return of_cohere(cohere.ClientV2(KEY, base_url=URL).rerank(model=MODEL, query=QUERY, documents=DOCUMENTS, top_n=N))


@case("cohere AsyncClientV2", "cohere")
def async_v2():
    client = cohere.AsyncClientV2(KEY, base_url=URL)
    return of_cohere(asyncio.run(client.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS)))


@case("cohere Client (v1)", "cohere")
def v1():
    answer = cohere.Client(KEY, base_url=URL).rerank(
        model=MODEL, query=QUERY, documents=[{"text": text, "title": "t"} for text in DOCUMENTS],
        rank_fields=["text"], return_documents=True,
    )  # fmt: skip
    assert [found.document.text for found in answer.results] == [DOCUMENTS[found.index] for found in answer.results]
    return of_cohere(answer)


@refusal("cohere ClientV2", "cohere", "UnauthorizedError")
def v2_key():
    return cohere.ClientV2("wrong", base_url=URL).rerank(model=MODEL, query=QUERY, documents=DOCUMENTS)


@refusal("cohere ClientV2", "cohere", "NotFoundError")
def v2_model():
    return cohere.ClientV2(KEY, base_url=URL).rerank(model="no-such", query=QUERY, documents=DOCUMENTS)


@refusal("cohere ClientV2", "cohere", "TooManyRequestsError")
def v2_busy():
    return cohere.ClientV2(KEY, base_url=BUSY).rerank(
        model=MODEL, query=QUERY, documents=DOCUMENTS, request_options=ONCE
    )
