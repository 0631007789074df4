"""Together, Mixedbread, ZeroEntropy, Pinecone, `rerankers`, Dify."""

import mixedbread
import pinecone
import together
import zeroentropy
from dify_plugin.interfaces.model.openai_compatible.rerank import OAICompatRerankModel
from rerankers.models.api_rankers import APIRanker
from task import BUSY, DOCUMENTS, KEY, MODEL, QUERY, URL, N, case, refusal


def of_together(url, key=KEY):
    answer = together.Together(api_key=key, base_url=url, max_retries=0).rerank.create(
        model=MODEL, query=QUERY, documents=DOCUMENTS, top_n=N, return_documents=True
    )
    return [(found.index, found.relevance_score) for found in answer.results]


case("together", "together")(lambda: of_together(URL))
refusal("together", "together", "AuthenticationError")(lambda: of_together(URL, "wrong"))
refusal("together", "together", "RateLimitError")(lambda: of_together(BUSY))


def of_mixedbread(url, key=KEY):
    client = mixedbread.Mixedbread(api_key=key, base_url=url, max_retries=0)
    answer = client.rerank(model=MODEL, query=QUERY, input=DOCUMENTS, top_k=N, return_input=True)
    return [(found.index, found.score) for found in answer.data]


case("mixedbread", "mixedbread")(lambda: of_mixedbread(URL))
refusal("mixedbread", "mixedbread", "AuthenticationError")(lambda: of_mixedbread(URL, "wrong"))
refusal("mixedbread", "mixedbread", "RateLimitError")(lambda: of_mixedbread(BUSY))


def of_zeroentropy(url, key=KEY):
    client = zeroentropy.ZeroEntropy(api_key=key, base_url=url + "/v1", max_retries=0)
    answer = client.models.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS)
    return [(found.index, found.relevance_score) for found in answer.results]


case("zeroentropy", "zeroentropy")(lambda: of_zeroentropy(URL))
refusal("zeroentropy", "zeroentropy", "AuthenticationError")(lambda: of_zeroentropy(URL, "wrong"))


def of_pinecone(url, key=KEY):
    client = pinecone.Pinecone(api_key=key, host=url)
    answer = client.inference.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS, top_n=N)
    return [(found.index, found.score) for found in answer.data]


case("pinecone", "pinecone")(lambda: of_pinecone(URL))
refusal("pinecone", "pinecone", "UnauthorizedError")(lambda: of_pinecone(URL, "wrong"))


def of_rerankers(provider, path):
    ranker = APIRanker(MODEL, KEY, provider, url=URL + path)
    return [(found.document.doc_id, found.score) for found in ranker.rank(QUERY, DOCUMENTS).results]


case("rerankers cohere", "rerankers")(lambda: of_rerankers("cohere", "/v1/rerank"))
case("rerankers jina", "rerankers")(lambda: of_rerankers("jina", "/v1/rerank"))
case("rerankers voyage", "rerankers")(lambda: of_rerankers("voyage", "/v1/rerank"))
case("rerankers mixedbread", "rerankers")(lambda: of_rerankers("mixedbread.ai", "/v1/reranking"))
case("rerankers pinecone", "rerankers")(lambda: of_rerankers("pinecone", "/rerank"))
case("rerankers TEI", "rerankers")(lambda: of_rerankers("text-embeddings-inference", "/rerank"))


@case("dify_plugin OAICompatRerankModel", "dify-plugin", gives="minmax")
def dify():
    credentials = {"endpoint_url": URL + "/v1", "api_key": KEY}
    answer = OAICompatRerankModel([])._invoke(MODEL, credentials, QUERY, DOCUMENTS, top_n=N)
    return sorted(((found.index, found.score) for found in answer.docs), key=lambda pair: -pair[1])
