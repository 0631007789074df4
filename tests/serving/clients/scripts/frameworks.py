"""LangChain, LlamaIndex and Haystack 2 packages, Xinference's and Baseten's clients."""

import os

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

import voyageai
from baseten_performance_client import PerformanceClient
from haystack.components.rankers.hugging_face_tei import HuggingFaceTEIRanker
from haystack.utils import Secret
from langchain_cohere import CohereRerank as LangChainCohere
from langchain_nvidia_ai_endpoints import NVIDIARerank as LangChainNvidia
from llama_index.postprocessor.cohere_rerank import CohereRerank
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.nvidia_rerank import NVIDIARerank
from llama_index.postprocessor.siliconflow_rerank import SiliconFlowRerank
from llama_index.postprocessor.xinference_rerank import XinferenceRerank
from task import (
    BUSY,
    DOCUMENTS,
    KEY,
    LONG,
    MODEL,
    OPEN,
    QUERY,
    URL,
    N,
    case,
    haystack_documents,
    langchain_documents,
    nodes,
    of_haystack,
    of_nodes,
    refusal,
)  # fmt: skip
from xinference_client.client.restful.restful_client import RESTfulRerankModelHandle

V1 = URL + "/v1"


def ranked(ranker):
    return of_nodes(ranker.postprocess_nodes(nodes(), query_str=QUERY))


@case("langchain-cohere CohereRerank", "langchain-cohere")
def langchain_cohere():
    ranker = LangChainCohere(base_url=URL, cohere_api_key=KEY, model=MODEL, top_n=N)
    found = ranker.compress_documents(langchain_documents(), QUERY)
    return [(document.metadata["i"], document.metadata["relevance_score"]) for document in found]


@case("llama-index CohereRerank", "llama-index-postprocessor-cohere-rerank")
def llama_cohere():
    return ranked(CohereRerank(base_url=URL, api_key=KEY, model=MODEL, top_n=N))


@case("llama-index JinaRerank", "llama-index-postprocessor-jinaai-rerank")
def llama_jina():
    return ranked(JinaRerank(base_url=URL, api_key=KEY, model=MODEL, top_n=N))


@refusal("llama-index JinaRerank", "llama-index-postprocessor-jinaai-rerank", "API key")
def llama_jina_key():
    return ranked(JinaRerank(base_url=URL, api_key="wrong", model=MODEL, top_n=N))


@case("llama-index SiliconFlowRerank", "llama-index-postprocessor-siliconflow-rerank")
def llama_siliconflow():
    return ranked(SiliconFlowRerank(base_url=V1 + "/rerank", api_key=KEY, model=MODEL, top_n=N))


@case("llama-index XinferenceRerank", "llama-index-postprocessor-xinference-rerank")
def llama_xinference():
    return ranked(XinferenceRerank(base_url=OPEN, model=MODEL, top_n=N))


@case("llama-index NVIDIARerank", "llama-index-postprocessor-nvidia-rerank", gives="logit")
def llama_nvidia():
    return ranked(NVIDIARerank(base_url=V1, api_key=KEY, model=MODEL, top_n=N))


@case("langchain NVIDIARerank", "langchain-nvidia-ai-endpoints", gives="logit")
def langchain_nvidia():
    ranker = LangChainNvidia(base_url=V1, api_key=KEY, model=MODEL, top_n=N)
    found = ranker.compress_documents(langchain_documents(), QUERY)
    return [(document.metadata["i"], document.metadata["relevance_score"]) for document in found]


def xinference(url, key):
    return RESTfulRerankModelHandle(MODEL, url, {"Authorization": f"Bearer {key}"}).rerank(
        DOCUMENTS, QUERY, top_n=N, return_documents=True
    )


@case("xinference-client", "xinference-client")
def xinference_good():
    return [(found["index"], found["relevance_score"]) for found in xinference(URL, KEY)["results"]]


@refusal("xinference-client", "xinference-client", "RuntimeError: Failed to rerank documents, detail: This needs")
def xinference_key():
    return xinference(URL, "wrong")


def tei(url, key=KEY):
    return HuggingFaceTEIRanker(url=url, top_k=N, token=Secret.from_token(key), max_retries=1)


@case("haystack HuggingFaceTEIRanker", "haystack-ai")
def haystack_tei():
    return of_haystack(tei(URL).run(query=QUERY, documents=haystack_documents()))


@refusal("haystack HuggingFaceTEIRanker", "haystack-ai", "401")
def haystack_key():
    return tei(URL, "wrong").run(query=QUERY, documents=haystack_documents())


@refusal("haystack HuggingFaceTEIRanker", "haystack-ai", "429")
def haystack_busy():
    return tei(BUSY).run(query=QUERY, documents=haystack_documents())


@case("baseten-performance-client", "baseten-performance-client", gives="unordered")
def baseten():
    answer = PerformanceClient(base_url=URL, api_key=KEY).rerank(query=QUERY, texts=DOCUMENTS)
    return sorted(((found.index, found.score) for found in answer.data), key=lambda pair: -pair[1])


@refusal("baseten-performance-client", "baseten-performance-client", "422")
def baseten_long():
    return PerformanceClient(base_url=URL, api_key=KEY).rerank(query=QUERY, texts=[LONG[:30_000]], truncate=False)


@case("voyageai Client, older", "voyageai")
def voyage():
    answer = voyageai.Client(KEY, base_url=V1).rerank(QUERY, DOCUMENTS, MODEL, top_k=N)
    return [(found.index, found.relevance_score) for found in answer.results]
