"""LiteLLM's `rerank()` through every provider that can be pointed at another server."""

import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # or it asks the internet at import

import litellm
from task import BUSY, DOCUMENTS, KEY, MODEL, QUERY, URL, N, case, refusal

PROVIDERS = {
    "cohere": "",
    "jina_ai": "",
    "hosted_vllm": "",
    "infinity": "/infinity",
    "huggingface": "",
    "together_ai": "/v1",
    "voyage": "/v1",
    "nvidia_nim": "",
    "fireworks_ai": "",
    "deepinfra": "",
}
GIVES = {"nvidia_nim": "logit", "deepinfra": "unordered"}


def ask(provider, url=URL, key=KEY):
    model = f"{provider}/{MODEL}"
    answer = litellm.rerank(
        model=model, query=QUERY, documents=DOCUMENTS, top_n=N, api_base=url + PROVIDERS[provider], api_key=key
    )
    pairs = [(found["index"], found["relevance_score"]) for found in answer.results]
    return sorted(pairs, key=lambda pair: -pair[1]) if provider == "deepinfra" else pairs  # its order is the input's


for name in PROVIDERS:
    case(f"litellm {name}/", "litellm", gives=GIVES.get(name, "score"))(lambda: ask(name))  # noqa: B023
refusal("litellm cohere/", "litellm", "AuthenticationError")(lambda: ask("cohere", key="wrong"))
refusal("litellm cohere/", "litellm", "RateLimitError")(lambda: ask("cohere", BUSY))
