"""LangChain's packages for Infinity and Voyage."""

import infinity_client
from langchain_community.document_compressors.infinity_rerank import InfinityRerank
from langchain_voyageai import VoyageAIRerank
from task import KEY, MODEL, OPEN, QUERY, URL, N, case, langchain_documents


def scores(ranker):
    found = ranker.compress_documents(langchain_documents(), QUERY)
    return [(document.metadata["i"], document.metadata["relevance_score"]) for document in found]


@case("langchain-community InfinityRerank", "langchain-community")
def infinity():
    return scores(InfinityRerank(client=infinity_client.Client(base_url=OPEN), model=MODEL, top_n=N))


@case("langchain-voyageai VoyageAIRerank", "langchain-voyageai")
def voyage():
    return scores(VoyageAIRerank(model=MODEL, voyage_api_key=KEY, base_url=URL + "/v1", top_k=N))
