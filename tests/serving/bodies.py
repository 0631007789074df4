"""Bodies of requests by their number, for the clients of `tests.serving.load`."""

from typing import Any

from tests.tiny_models import CORPUS


def tiny_body(number: int) -> dict[str, Any]:
    """Of a request to `tiny`, each of which is another."""
    return {
        "model": "tiny",
        "query": f"query {number}",
        "documents": [*CORPUS, f"text {number}"],
        "return_logits": True,
    }


def sleeper_body(number: int) -> dict[str, Any]:
    """Five documents of 2 kB: a tenth of a second of work."""
    return {"model": "sleeper", "query": "q", "documents": [f"{number} {i} ".ljust(2000, "x") for i in range(5)]}


def mixed_body(number: int) -> dict[str, Any]:
    """Small, large, to another model, and what is refused; `MIXED` says what becomes of it."""
    number %= 500
    documents = [f"{number} {i} {CORPUS[i % len(CORPUS)]}" for i in range(100)]
    bodies: list[dict[str, Any]] = [
        tiny_body(number),
        {"model": "tiny", "query": f"q {number}", "documents": documents},
        {"model": "sleeper", "query": f"q {number}", "documents": documents[:1]},
        {"model": "tiny", "query": "q", "documents": documents, "top_n": 0},
        {"model": "unknown", "query": "q", "documents": documents},
    ]
    return bodies[number % len(bodies)]


MIXED = (200, 200, 200, 400, 404)
"""Statuses of the answers to `mixed_body`, by the number modulo five."""
