"""The list of models, for the clients of four servers."""

from rankmill.serving.dialects.catalogue import ClusterAuth, Entry, model, models

ENTRIES = (
    Entry(name="m", root="m", revision="abc", created=1, max_length=512),
    Entry(name="alias", root="m", revision="abc", created=1, max_length=512),
)


def test_a_list_satisfies_all_its_clients() -> None:
    found = models(ENTRIES).model_dump(mode="json")

    assert found["object"] == "list"
    # OpenAI's, and LangChain and llama-index for NIM
    assert [(one["id"], one["object"], one["owned_by"], one["root"]) for one in found["data"]] == [
        ("m", "model", "rankmill", "m"),
        ("alias", "model", "rankmill", "m"),
    ]
    # cohere
    assert [(one["name"], one["endpoints"], one["context_length"]) for one in found["models"]] == [
        ("m", ["rerank"], 512),
        ("alias", ["rerank"], 512),
    ]


def test_xinference_gets_a_rerank_model_and_needs_no_login() -> None:
    assert model(ENTRIES[1]).model_dump()["model_type"] == "rerank"
    assert ClusterAuth().model_dump() == {"auth": False}
