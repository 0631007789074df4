"""The index in Milvus, here Milvus Lite: the same seam, the same filters, the same promises."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from rankmill.errors import InputError, StorageError, UsageError
from rankmill.retrieval.corpus import open_corpus
from rankmill.retrieval.lance import open_lance
from rankmill.retrieval.lance_build import Built, build
from rankmill.retrieval.milvus import MilvusRetriever, open_milvus
from rankmill.retrieval.milvus_build import build_milvus
from rankmill.retrieval.milvus_client import is_milvus
from rankmill.retrieval.retriever import MODES, Embed, Retriever
from rankmill.serving.index import index_of
from rankmill.settings.serve import EndpointSettings
from rankmill.settings.storage import StorageSettings
from tests.retrieval.corpora import DOCUMENTS, StoppingEmbedder, embed, filters, manifest_of, numbered, write_beir

pytest.importorskip("milvus_lite")
pytestmark = pytest.mark.filterwarnings("ignore")  # of pymilvus' own dependencies

STORAGE = StorageSettings()
FINGERPRINT = "f" * 64


def make(corpus: Path, uri: Path, *, vectors: Embed | None = embed, rows: int = 2) -> Built:
    opened = open_corpus(str(corpus), STORAGE, keep=("year",))
    manifest = manifest_of(opened, FINGERPRINT if vectors else None)
    return build_milvus(str(uri), opened, manifest, vectors, batch_documents=rows, progress=lambda _: None)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MilvusRetriever, Retriever]]:
    """The five documents in Milvus and in LanceDB."""
    folder = tmp_path_factory.mktemp("milvus")
    corpus = write_beir(folder / "corpus.jsonl")
    make(corpus, folder / "index.db")
    opened = open_corpus(str(corpus), STORAGE, keep=("year",))
    manifest = manifest_of(opened, FINGERPRINT)
    uri = str(folder / "lance")
    asyncio.run(build(uri, opened, manifest, embed, batch_documents=5, storage=STORAGE, progress=lambda _: None))
    milvus = open_milvus(str(folder / "index.db"), embed, FINGERPRINT)
    yield milvus, asyncio.run(open_lance(uri, STORAGE, embed, FINGERPRINT))
    milvus.close()


def test_full_text(both: tuple[MilvusRetriever, Retriever]) -> None:
    found = asyncio.run(both[0].search("Cats?", 10, "sparse"))
    assert set(found.ids) == {"cat", "pet"}
    assert found.scores[0] >= found.scores[1] > 0
    by_id = {document["_id"]: document for document in DOCUMENTS}
    assert found.texts == tuple(by_id[str(name)]["text"] for name in found.ids)
    assert found.columns == {"year": tuple(by_id[str(name)]["year"] for name in found.ids)}


def test_dense_search_agrees_with_lance(both: tuple[MilvusRetriever, Retriever]) -> None:
    milvus, lance = (asyncio.run(one.search("dogs and the postman", 5, "dense")) for one in both)
    assert milvus.ids == lance.ids
    assert milvus.scores == pytest.approx(lance.scores, abs=1e-5)
    assert milvus.titles == lance.titles


def test_hybrid_fuses(both: tuple[MilvusRetriever, Retriever]) -> None:
    lists = [asyncio.run(both[0].search("postman oil", 5, mode)).ids for mode in ("sparse", "dense")]
    found = asyncio.run(both[0].search("postman oil", 5, "hybrid"))
    ranks = [{name: rank for rank, name in enumerate(ids, 1)} for ids in lists]
    expected = {name: sum(1 / (60 + rank[name]) for rank in ranks if name in rank) for name in found.ids}
    assert dict(zip(found.ids, found.scores, strict=True)) == pytest.approx(expected)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(where=filters())
def test_filters_mean_the_same_in_both(both: tuple[MilvusRetriever, Retriever], where: str) -> None:
    """Dense search for everything finds what the filter lets through."""
    milvus, lance = (asyncio.run(one.search("x", 5, "dense", where)) for one in both)
    assert set(milvus.ids) == set(lance.ids)


def test_both_have_the_same_columns_and_modes(both: tuple[MilvusRetriever, Retriever]) -> None:
    assert both[0].modes == both[1].modes == MODES
    assert both[0].columns == both[1].columns == ("doc_id", "title", "year")
    for retriever in both:
        with pytest.raises(UsageError, match="filter"):
            asyncio.run(retriever.search("x", 1, "sparse", "sparse = 1"))


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no whole index"):
        open_milvus(str(tmp_path / "typo.db"))
    assert not list(tmp_path.iterdir())


def test_a_search_that_fails_leaves_the_other_one_no_thread(both: tuple[MilvusRetriever, Retriever]) -> None:
    ended = threading.Event()

    def broken(texts: Sequence[str]) -> Any:
        raise StorageError(f"no vectors for {len(texts)} texts")

    class Slow(MilvusRetriever):
        def _sparse(self, query: str, k: int, where: str) -> Any:
            time.sleep(0.3)
            found = super()._sparse(query, k, where)
            ended.set()
            return found

    retriever = Slow(both[0]._client, both[0]._uri, both[0]._collection, broken)

    async def go() -> bool:
        with pytest.raises(StorageError, match="no vectors for 1 texts"):
            await retriever.search("cat", 3, "hybrid")
        return ended.is_set()

    assert asyncio.run(go())


def test_a_stopped_build_is_not_served_and_goes_on(tmp_path: Path) -> None:
    corpus, uri = write_beir(tmp_path / "c.jsonl", numbered(25)), tmp_path / "index.db"
    with pytest.raises(KeyboardInterrupt):
        make(corpus, uri, vectors=StoppingEmbedder(3), rows=4)
    with pytest.raises(InputError, match="no whole index"):
        open_milvus(str(uri), embed, FINGERPRINT)
    assert make(corpus, uri, rows=4) == Built(25, 13)
    assert make(corpus, uri, rows=4) == Built(25, 0)
    with pytest.raises(UsageError, match="eeeeeeeeeeee"):
        open_milvus(str(uri), embed, "e" * 64)
    retriever = open_milvus(str(uri))
    assert retriever.modes == ("sparse",)
    assert asyncio.run(retriever.search("word0024", 5, "sparse")).ids == ("d0024",)
    retriever.close()


def test_a_newer_index_takes_over(tmp_path: Path) -> None:
    corpus, uri = write_beir(tmp_path / "c.jsonl", DOCUMENTS[:2]), tmp_path / "index.db"
    assert make(corpus, uri, vectors=None) == Built(2, 2)
    write_beir(corpus, DOCUMENTS)
    assert make(corpus, uri, vectors=None) == Built(5, 5)
    retriever = open_milvus(str(uri))
    assert asyncio.run(retriever.search("salt", 5, "sparse")).ids == ("sea",)
    retriever.close()


def test_what_milvus_cannot_hold_is_named(tmp_path: Path) -> None:
    corpus = write_beir(tmp_path / "c.jsonl", [{"_id": "long", "title": "", "text": "é" * 40_000, "year": 1}])
    with pytest.raises(InputError, match=r"'long' has 80,000 bytes.*65,535"):
        make(corpus, tmp_path / "index.db", vectors=None)


def test_ids_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    corpus = write_beir(tmp_path / "c.jsonl", [*DOCUMENTS, DOCUMENTS[0]])
    with pytest.raises(InputError, match="6 documents, but 5"):
        make(corpus, tmp_path / "index.db", vectors=None)


def test_which_uris_are_milvus() -> None:
    assert [is_milvus(uri) for uri in ("http://h:19530/x", "a/b.db", "s3://b/x", "folder")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_closed_file_can_be_opened_by_another_process(tmp_path: Path) -> None:
    """As `rankmill serve` looks at an index, and lets a replica search it."""
    make(write_beir(tmp_path / "c.jsonl"), tmp_path / "index.db")
    open_milvus(str(tmp_path / "index.db"), embed, FINGERPRINT).close()
    script = (
        f"from rankmill.retrieval.milvus import open_milvus; print(open_milvus({str(tmp_path / 'index.db')!r}).columns)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert "doc_id" in done.stdout, done.stderr


def test_two_processes_cannot_search_one_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--index-replicas 2: only one process"):
        index_of(EndpointSettings(index=str(tmp_path / "index.db"), index_replicas=2))
