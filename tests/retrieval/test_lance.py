"""The index in LanceDB: what is found, and that nothing half-built ever is."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from rankmill.errors import InputError, OutputConflictError, UsageError
from rankmill.retrieval.corpus import open_corpus
from rankmill.retrieval.lance import LanceRetriever, lance_manifest, open_lance
from rankmill.retrieval.lance_build import Built, build
from rankmill.retrieval.retriever import Embed, Found
from rankmill.settings.storage import StorageSettings
from tests.conftest import S3Bucket
from tests.retrieval.corpora import DOCUMENTS, StoppingEmbedder, embed, manifest_of, numbered, write_beir

STORAGE = StorageSettings()


def make(
    corpus: Path, uri: Path | str, *, vectors: Embed | None = None, fingerprint: str = "f" * 64, rows: int = 2
) -> Built:
    opened = open_corpus(str(corpus), STORAGE, keep=("year",))
    return asyncio.run(
        build(
            str(uri),
            opened,
            manifest_of(opened, fingerprint if vectors else None),
            vectors,
            batch_documents=rows,
            storage=STORAGE,
            progress=lambda _: None,
        )
    )


def search(uri: Path | str, query: str, mode: str, *, k: int = 10, where: str | None = None) -> Found:
    async def ask() -> Found:
        retriever = await open_lance(str(uri), STORAGE, embed if mode != "sparse" else None, "f" * 64)
        return await retriever.search(query, k, mode, where)  # type: ignore[arg-type]

    return asyncio.run(ask())


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the five documents, with vectors; read only."""
    folder = tmp_path_factory.mktemp("lance")
    make(write_beir(folder / "corpus.jsonl.gz"), folder / "index", vectors=embed)
    return folder / "index"


def test_full_text_finds_stems_and_titles(index: Path) -> None:
    found = search(index, "purring cat?", "sparse")
    assert found.ids == ("cat", "pet")
    assert found.scores[0] > found.scores[1] > 0
    assert found.titles == ("Cats", "")
    assert found.texts == (DOCUMENTS[0]["text"], DOCUMENTS[2]["text"])
    assert found.columns == {"year": (2001, None)}


def test_dense_scores_are_inner_products(index: Path) -> None:
    found = search(index, "dogs and cats", "dense")
    texts = {d["_id"]: f"{d['title']} {d['text']}".strip() for d in DOCUMENTS}
    expected = {name: float(embed(["dogs and cats"])[0] @ embed([text])[0]) for name, text in texts.items()}
    assert len(found) == 5
    assert dict(zip(found.ids, found.scores, strict=True)) == pytest.approx(expected, abs=1e-6)
    assert list(found.scores) == sorted(found.scores, reverse=True)


def test_hybrid_is_the_fusion_of_both(index: Path) -> None:
    sparse, dense = (search(index, "cat postman", mode).ids for mode in ("sparse", "dense"))
    found = search(index, "cat postman", "hybrid", k=3)
    ranks = [{name: rank for rank, name in enumerate(ids[:3], 1)} for ids in (sparse, dense)]
    expected = {n: sum(1 / (60 + r[n]) for r in ranks if n in r) for n in {*ranks[0], *ranks[1]}}
    assert len(found) == 3
    assert dict(zip(found.ids, found.scores, strict=True)) == pytest.approx({n: expected[n] for n in found.ids})
    assert min(found.scores) >= max([s for n, s in expected.items() if n not in found.ids], default=0) - 1e-12


@pytest.mark.parametrize("mode", ["sparse", "dense", "hybrid"])
def test_filters_come_before_the_search(index: Path, mode: str) -> None:
    found = search(index, "cat dog oil waves", mode, k=1, where="year > 2003 and doc_id != 'sea'")
    assert found.ids == ("car",)
    assert search(index, "cat dog oil waves", mode, where="year is null").ids == ("pet",)
    assert set(search(index, "cat dog oil waves", mode, where="title like 'C%'").ids) == {"cat", "car"}
    assert search(index, "cat", mode, where="doc_id = 'it''s; drop table documents'").ids == ()


@pytest.mark.parametrize("query", ["", "?!", '"cat', "+cat -dog", "a AND (b", "cat\x00dog", "x" * 5000, "ß 猫"])
def test_no_character_of_a_query_is_an_operator(index: Path, query: str) -> None:
    found = search(index, query, "sparse")
    assert "cat" not in found.ids or "cat" in query


def test_a_filter_that_is_none_is_refused(index: Path) -> None:
    for where in ("vector = 1", "1 = 1", "length(text) > 1"):
        with pytest.raises(UsageError, match="filter"):
            search(index, "cat", "sparse", where=where)


def test_without_a_model_only_full_text(index: Path) -> None:
    async def ask() -> None:
        retriever = await open_lance(str(index), STORAGE)
        assert retriever.modes == ("sparse",)
        assert retriever.columns == ("doc_id", "title", "year")
        await retriever.search("cat", 1, "hybrid")

    with pytest.raises(UsageError, match="sparse only"):
        asyncio.run(ask())


def test_another_model_is_refused(index: Path, tmp_path: Path) -> None:
    def open_with(uri: Path) -> LanceRetriever:
        return asyncio.run(open_lance(str(uri), STORAGE, embed, "e" * 64))

    with pytest.raises(UsageError, match=r"ffffffffffff.*eeeeeeeeeeee"):
        open_with(index)
    make(write_beir(tmp_path / "c.jsonl"), tmp_path / "words")
    with pytest.raises(UsageError, match="no vectors"):
        open_with(tmp_path / "words")


def test_the_manifest_says_what_to_load(index: Path) -> None:
    info = asyncio.run(lance_manifest(str(index))).embedder
    assert info is not None
    assert (info.model, info.fingerprint) == ("bag", "f" * 64)


def test_a_stopped_build_is_not_served_and_goes_on(tmp_path: Path) -> None:
    corpus = write_beir(tmp_path / "c.jsonl", numbered(25))
    with pytest.raises(KeyboardInterrupt):
        make(corpus, tmp_path / "index", vectors=StoppingEmbedder(3), rows=4)
    with pytest.raises(InputError, match="not whole: its build ended after 12 documents"):
        search(tmp_path / "index", "word0001", "sparse")
    rest = StoppingEmbedder(100)
    assert make(corpus, tmp_path / "index", vectors=rest, rows=4) == Built(25, 13)
    assert rest.texts == [document["text"] for document in numbered(25)[12:]]
    assert search(tmp_path / "index", "word0001", "sparse").ids == ("d0001",)
    assert len(search(tmp_path / "index", "shared", "sparse", k=100)) == 25


def test_a_killed_build_goes_on(tmp_path: Path) -> None:
    """A real process, ended by os._exit right after a commit."""
    corpus = write_beir(tmp_path / "c.jsonl", numbered(25))
    script = f"""
import asyncio, os
from pathlib import Path
from tests.retrieval import test_lance, corpora
opened = test_lance.open_corpus({str(corpus)!r}, test_lance.STORAGE, keep=("year",))
asyncio.run(test_lance.build({str(tmp_path / "index")!r}, opened, corpora.manifest_of(opened), None,
    batch_documents=10, storage=test_lance.STORAGE, progress=lambda n: os._exit(9) if n == 20 else None))
"""

    async def killed() -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            script,
            cwd=Path(__file__).parents[2],
            env={"PYTHONPATH": "lib:.", "HOME": str(tmp_path)},
        )
        return await process.wait()

    assert asyncio.run(killed()) == 9
    with pytest.raises(InputError, match="after 20 documents"):
        search(tmp_path / "index", "shared", "sparse")
    assert make(corpus, tmp_path / "index", rows=10) == Built(25, 5)
    assert search(tmp_path / "index", "word0024", "sparse").ids == ("d0024",)


def test_a_whole_index_is_left_alone_and_another_is_refused(tmp_path: Path) -> None:
    corpus = write_beir(tmp_path / "c.jsonl")
    assert make(corpus, tmp_path / "index") == Built(5, 5)
    assert make(corpus, tmp_path / "index") == Built(5, 0)
    with pytest.raises(OutputConflictError, match="differs in: embedder"):
        make(corpus, tmp_path / "index", vectors=embed)
    write_beir(corpus, DOCUMENTS[:3])
    with pytest.raises(OutputConflictError, match="differs in: files"):
        make(corpus, tmp_path / "index")


def test_ids_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    corpus = write_beir(tmp_path / "c.jsonl", [*DOCUMENTS, DOCUMENTS[1]])
    with pytest.raises(InputError, match=r"6 documents but 5 ids(?s:.*)dog"):
        make(corpus, tmp_path / "index")
    with pytest.raises(InputError, match="not whole"):
        search(tmp_path / "index", "cat", "sparse")


def test_an_empty_place_and_somebody_elses_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no index"):
        search(tmp_path / "nothing", "cat", "sparse")
    assert not (tmp_path / "nothing").exists()

    async def other() -> None:
        import lancedb  # noqa: PLC0415

        connection = await lancedb.connect_async(str(tmp_path / "other"))
        await connection.create_table("documents", [{"a": 1}])

    asyncio.run(other())
    with pytest.raises(InputError, match="did not make"):
        search(tmp_path / "other", "cat", "sparse")


def test_an_index_on_s3(tmp_path: Path, s3: S3Bucket) -> None:
    corpus = write_beir(tmp_path / "c.jsonl", numbered(25))
    with pytest.raises(KeyboardInterrupt):
        make(corpus, s3.uri("index"), vectors=StoppingEmbedder(2), rows=10)
    assert make(corpus, s3.uri("index"), vectors=embed, rows=10) == Built(25, 5)
    assert search(s3.uri("index"), "word0007", "hybrid", k=1).ids == ("d0007",)


def test_a_profile_is_refused_rather_than_passed_over() -> None:
    with pytest.raises(UsageError, match=r"--storage\.profile work cannot sign"):
        asyncio.run(open_lance("s3://bucket/index", StorageSettings(profile="work")))


def test_programs_that_are_started_afterwards_warn_of_nothing(tmp_path: Path) -> None:
    code = (
        "import asyncio, subprocess, sys\n"
        "from rankmill.retrieval.lance_table import connect\n"
        "from rankmill.settings.storage import StorageSettings\n"
        f"asyncio.run(connect({str(tmp_path / 'index')!r}, StorageSettings()))\n"
        "subprocess.run([sys.executable, '-c', ''], preexec_fn=lambda: None, check=True)  # as Ray starts its own\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
