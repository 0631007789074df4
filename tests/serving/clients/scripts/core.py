"""Clients that install in seconds: Cohere, Voyage, Infinity, TEI through LlamaIndex."""

import asyncio

import cohere_clients  # noqa: F401 - its cases run when it is imported
import infinity_client
import voyageai
from infinity_client.api.default import rerank as infinity_rerank
from infinity_client.models import HTTPValidationError, RerankInput
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference
from task import BUSY, DOCUMENTS, KEY, MODEL, OPEN, QUERY, URL, N, case, nodes, of_nodes, refusal


def of_voyage(answer):
    assert answer.total_tokens > 0
    assert [found.document for found in answer.results] == [DOCUMENTS[found.index] for found in answer.results]
    return [(found.index, found.relevance_score) for found in answer.results]


@case("voyageai Client", "voyageai")
def voyage():
    return of_voyage(voyageai.Client(KEY, base_url=URL + "/v1").rerank(QUERY, DOCUMENTS, MODEL))


@case("voyageai AsyncClient", "voyageai")
def async_voyage():
    client = voyageai.AsyncClient(KEY, base_url=URL + "/v1")
    return of_voyage(asyncio.run(client.rerank(QUERY, DOCUMENTS, MODEL, top_k=N)))


@refusal("voyageai Client", "voyageai", "AuthenticationError")
def voyage_key():
    return voyageai.Client("wrong", base_url=URL + "/v1").rerank(QUERY, DOCUMENTS, MODEL)


@refusal("voyageai Client", "voyageai", "RateLimitError")
def voyage_busy():
    return voyageai.Client(KEY, base_url=BUSY + "/v1").rerank(QUERY, DOCUMENTS, MODEL)


def infinity(url, documents=DOCUMENTS, token=KEY, top_n=N):
    client = infinity_client.AuthenticatedClient(base_url=url, token=token, raise_on_unexpected_status=True)
    body = RerankInput(query=QUERY, documents=documents, return_documents=True, model=MODEL, top_n=top_n)
    return infinity_rerank.sync(client=client, body=body)


@case("infinity-client", "infinity-client")
def infinity_good():
    answer = infinity(URL)
    assert [found.document for found in answer.results] == [DOCUMENTS[found.index] for found in answer.results]
    assert answer.usage.total_tokens > 0
    return [(found.index, found.relevance_score) for found in answer.results]


@refusal("infinity-client", "infinity-client", "UnexpectedStatus: Unexpected status code: 401")
def infinity_key():
    return infinity(URL, token="wrong")


@refusal("infinity-client", "infinity-client", "UnexpectedStatus: Unexpected status code: 429")
def infinity_busy():
    return infinity(BUSY)


@refusal("infinity-client", "infinity-client", "422")
def infinity_bad():
    answer = infinity(URL, documents=[])
    assert isinstance(answer, HTTPValidationError), answer
    raise ValueError(f"422: {answer.detail}")


@case("llama-index TEI", "llama-index-postprocessor-tei-rerank")
def tei():
    ranker = TextEmbeddingInference(base_url=URL, auth_token=f"Bearer {KEY}", top_n=N)
    return of_nodes(ranker.postprocess_nodes(nodes(), query_str=QUERY))


@case("llama-index TEI, no key", "llama-index-postprocessor-tei-rerank")
def tei_open():
    return of_nodes(TextEmbeddingInference(base_url=OPEN, top_n=N).postprocess_nodes(nodes(), query_str=QUERY))
