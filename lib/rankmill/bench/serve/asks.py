"""The requests: of one size, and of many."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import orjson

_SIZES = (10, 1, 50, 20, 5, 100, 10, 20)
"""Documents of mixed requests, in turn: 27 on average."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A query and the documents to rerank."""

    query: str
    documents: tuple[str, ...]

    @property
    def columns(self) -> tuple[list[str], list[str]]:
        """As a scorer takes them."""
        return [self.query] * len(self.documents), list(self.documents)

    def body(self, **more: Any) -> bytes:
        """As servers take them, with what else they want to hear."""
        return orjson.dumps({"query": self.query, "documents": self.documents, **more})


def mixed(queries: Sequence[str], texts: Sequence[str]) -> list[Ask]:
    """Requests of several sizes, which hold each pair once; the query is that of a request's first row."""
    asks: list[Ask] = []
    start = 0
    for size in cycle(_SIZES):
        if start >= len(texts):
            return asks
        asks.append(Ask(queries[start], tuple(texts[start : start + size])))
        start += size
    raise AssertionError("sizes never end")


def alike(queries: Sequence[str], texts: Sequence[str], documents: int, size: int) -> Iterator[Ask]:
    """Requests without end, each with other documents of `size` bytes in UTF-8, made of texts one after the other."""
    stream = _endless(texts)
    for query in cycle(queries):
        yield Ask(query, tuple(_filled(stream, size) for _ in range(documents)))


def of_size(queries: Sequence[str], texts: Sequence[str], documents: int) -> Ask:
    """A request with so many documents, all different."""
    found = dict.fromkeys(text for text, _ in zip(texts, range(documents), strict=False))
    number = 0
    while len(found) < documents:
        found[f"{number} {texts[number % len(texts)]}"] = None
        number += 1
    return Ask(queries[0], tuple(found))


def _endless(texts: Sequence[str]) -> Iterator[str]:
    """All texts, again and again, every time with a number in front that makes them others."""
    number = 0
    while True:
        for text in texts:
            yield f"{number} {text}"
        number += 1


def _filled(stream: Iterator[str], size: int) -> str:
    found = b""
    while len(found) < size:
        found += next(stream).encode() + b" "
    text = found[:size].decode(errors="ignore")  # without half a character at its end
    return text + " " * (size - len(text.encode()))
