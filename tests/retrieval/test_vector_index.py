"""Many vectors: from `VECTOR_INDEX_ROWS` on an approximate index finds nearly what comparing all of them finds."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rankmill.retrieval import lance_build
from rankmill.retrieval.corpus import open_corpus
from rankmill.retrieval.lance import open_lance
from rankmill.retrieval.lance_build import Built, build
from rankmill.retrieval.lance_table import connect, open_table
from rankmill.retrieval.retriever import Found
from rankmill.settings.storage import StorageSettings
from tests.retrieval.corpora import DIMENSION, manifest_of

STORAGE = StorageSettings()
QUERIES = 20
FOUND = 100
TOPICS = 300
NOISE = 0.7
"""Of a document against its topic, over the vector's length: topics overlap, as those of real texts do."""


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Texts are numbers; those with the same remainder by `TOPICS` have a topic in common."""
    topics = np.random.default_rng(0).normal(size=(TOPICS, DIMENSION))
    vectors = np.stack([topics[int(t) % TOPICS] + NOISE * np.random.default_rng(int(t)).normal(size=DIMENSION)
                        for t in texts])  # fmt: skip
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def indexed(folder: Path, documents: int) -> tuple[Built, list[str]]:
    """Build an index of so many documents; what was built, and the columns that have an index of their own."""
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"_id": i, "text": str(i)}) + "\n" for i in range(documents)))
    opened = open_corpus(str(corpus), STORAGE)

    async def run() -> tuple[Built, list[str]]:
        manifest = manifest_of(opened, "f" * 64)
        uri = str(folder / "index")
        built = await build(
            uri, opened, manifest, embed, batch_documents=20_000, storage=STORAGE, progress=lambda _: None
        )
        table = await open_table(await connect(uri, STORAGE), uri)
        assert table is not None
        return built, [column for index in await table.list_indices() for column in index.columns]

    return asyncio.run(run())


def recall(folder: Path, documents: int) -> float:
    """Share of the exact best `FOUND` that the index finds, over new queries."""
    vectors = embed([str(i) for i in range(documents)])
    queries = [str(documents + i) for i in range(QUERIES)]
    exact = np.argsort(-(embed(queries) @ vectors.T), axis=1)[:, :FOUND]

    async def search() -> list[Found]:
        retriever = await open_lance(str(folder / "index"), STORAGE, embed, "f" * 64)
        return [await retriever.search(query, FOUND, "dense") for query in queries]

    both = zip(asyncio.run(search()), exact.tolist(), strict=True)
    return float(np.mean([len(set(found.ids) & set(best)) / FOUND for found, best in both]))


@pytest.mark.parametrize(
    ("documents", "least"),
    [
        pytest.param(4_000, 1_000, id="few"),
        pytest.param(100_000, lance_build.VECTOR_INDEX_ROWS, id="as shipped", marks=pytest.mark.slow),
    ],
)
def test_an_approximate_search_misses_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, documents: int, least: int
) -> None:
    monkeypatch.setattr(lance_build, "VECTOR_INDEX_ROWS", least)
    built, columns = indexed(tmp_path, documents)
    assert built.documents == documents
    assert "vector" in columns
    assert recall(tmp_path, documents) >= 0.95


def test_fewer_are_compared_one_by_one(tmp_path: Path) -> None:
    _, columns = indexed(tmp_path, 2_000)
    assert columns == ["searched"]
    assert recall(tmp_path, 2_000) == 1.0
