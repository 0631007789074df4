"""Rankers for Haystack 3."""

import os

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

from haystack.utils import Secret
from haystack_integrations.components.rankers.cohere import CohereRanker
from haystack_integrations.components.rankers.jina import JinaRanker
from haystack_integrations.components.rankers.nvidia import NvidiaRanker
from task import KEY, MODEL, QUERY, URL, case, haystack_documents, of_haystack

TOKEN = Secret.from_token(KEY)


def ranked(ranker):
    return of_haystack(ranker.run(query=QUERY, documents=haystack_documents()))


@case("haystack CohereRanker", "cohere-haystack")
def cohere():
    return ranked(CohereRanker(model=MODEL, api_key=TOKEN, api_base_url=URL))


@case("haystack JinaRanker", "jina-haystack")
def jina():
    return ranked(JinaRanker(model=MODEL, api_key=TOKEN, base_url=URL + "/v1/rerank"))


@case("haystack NvidiaRanker", "nvidia-haystack", gives="logit")
def nvidia():
    ranker = NvidiaRanker(model=MODEL, api_key=TOKEN, api_url=URL + "/v1")
    ranker.warm_up()
    return ranked(ranker)
