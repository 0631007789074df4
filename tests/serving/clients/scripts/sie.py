"""SIE's client, and the frameworks' packages on it; these send no key."""

import asyncio
import os

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

from sie_haystack import SIERanker
from sie_langchain import SIEReranker
from sie_llamaindex import SIENodePostprocessor
from sie_sdk import SIEAsyncClient, SIEClient
from task import (
    DOCUMENTS,
    KEY,
    MODEL,
    OPEN,
    QUERY,
    URL,
    case,
    haystack_documents,
    langchain_documents,
    nodes,
    of_nodes,
    refusal,
)  # fmt: skip

ITEMS = [{"id": str(i), "text": text} for i, text in enumerate(DOCUMENTS)]


def of_sie(answer):
    assert [found["rank"] for found in answer["scores"]] == list(range(len(ITEMS)))
    return [(found["item_id"], found["score"]) for found in answer["scores"]]


def ask(url, key=KEY, model=MODEL):
    return SIEClient(url, api_key=key).score(model, {"text": QUERY}, ITEMS, wait_for_capacity=False)


case("sie-sdk SIEClient", "sie-sdk")(lambda: of_sie(ask(URL)))


@case("sie-sdk SIEAsyncClient", "sie-sdk")
def in_async():
    async def run():
        client = SIEAsyncClient(URL, api_key=KEY)
        try:
            return await client.score(MODEL, {"text": QUERY}, ITEMS)
        finally:
            await client.close()

    return of_sie(asyncio.run(run()))


refusal("sie-sdk SIEClient", "sie-sdk", "API key")(lambda: ask(URL, "wrong"))
refusal("sie-sdk SIEClient", "sie-sdk", "There is no such model")(lambda: ask(URL, model="no-such"))


@case("sie-langchain SIEReranker", "sie-langchain")
def langchain():
    found = SIEReranker(base_url=OPEN, model=MODEL).compress_documents(langchain_documents(), QUERY)
    return [(document.metadata["i"], document.metadata["relevance_score"]) for document in found]


@case("sie-llamaindex SIENodePostprocessor", "sie-llamaindex")
def llama():
    return of_nodes(SIENodePostprocessor(base_url=OPEN, model=MODEL).postprocess_nodes(nodes(), query_str=QUERY))


@case("sie-haystack SIERanker", "sie-haystack")
def haystack():
    found = SIERanker(base_url=OPEN, model=MODEL).run(query=QUERY, documents=haystack_documents())["documents"]
    return [
        (document.id, document.score if document.score is not None else document.meta["score"]) for document in found
    ]
