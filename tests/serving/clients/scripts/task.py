"""What the client of a script is to ask, and the line of JSON in which the script says what came of it."""

import json
import os
from importlib.metadata import version

URL = os.environ["URL"]
"""Wants `KEY`."""
OPEN = os.environ["OPEN"]
"""Wants no key: for clients that cannot send one."""
BUSY = os.environ["BUSY"]
"""Refuses whatever it is asked, with 429."""
TASK = json.loads(os.environ["TASK"])
KEY, MODEL, QUERY, DOCUMENTS = (TASK[name] for name in ("key", "model", "query", "documents"))
N = len(DOCUMENTS)
LONG = "a very long document " * 2000


def case(client, package, *, gives="score"):
    """Run a function at once that returns [(index, score), ..], best first; `gives`: a key of `EQUAL` in the test."""

    def run(ask):
        try:
            got = {"got": [(int(index), float(score)) for index, score in ask()]}
        except Exception as error:  # noqa: BLE001 - the test fails with it
            got = {"error": f"{type(error).__name__}: {error}"}
        _say(client, package, gives=gives, **got)

    return run


def refusal(client, package, wants):
    """Run a function at once that ought to raise an exception; `wants` is in `TypeName: message`."""

    def run(ask):
        try:
            said = f"no exception but {ask()!r}"
        except Exception as error:  # noqa: BLE001 - this is what the test looks at
            said = f"{type(error).__name__}: {error}"
        _say(client, package, wants=wants, said=said)

    return run


def _say(client, package, **fields):
    print(json.dumps({"client": client, "version": f"{package} {version(package)}", **fields}), flush=True)
    input()  # the test looks which paths were asked, and then lets the script go on


def nodes():
    """The documents, for LlamaIndex."""
    from llama_index.core.schema import NodeWithScore, TextNode

    return [NodeWithScore(node=TextNode(text=text, id_=str(i)), score=0.0) for i, text in enumerate(DOCUMENTS)]


def of_nodes(found):
    """What LlamaIndex returns."""
    return [(node.node.id_, node.score) for node in found]


def langchain_documents():
    """The documents, for LangChain."""
    from langchain_core.documents import Document

    return [Document(page_content=text, metadata={"i": i}) for i, text in enumerate(DOCUMENTS)]


def haystack_documents():
    """The documents, for Haystack."""
    from haystack import Document

    return [Document(content=text, id=str(i)) for i, text in enumerate(DOCUMENTS)]


def of_haystack(found):
    """What Haystack returns."""
    return [(document.id, document.score) for document in found["documents"]]
