"""`rankmill index`, from a corpus to an index that is searched with the model that made it."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from rankmill.cli.main import main
from rankmill.errors import UsageError
from rankmill.retrieval.lance import lance_manifest, open_lance
from rankmill.retrieval.open import open_retriever
from rankmill.retrieval.retriever import Found
from rankmill.scoring.embedder import load_embedder
from rankmill.scoring.options import ScorerOptions
from rankmill.settings.storage import StorageSettings
from tests.retrieval.corpora import DOCUMENTS, write_beir
from tests.scoring.tiny_embedders import save_bi_encoder

STORAGE = StorageSettings()


def test_an_index_with_vectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus, index = write_beir(tmp_path / "corpus.jsonl.gz"), str(tmp_path / "index")
    model = str(save_bi_encoder(tmp_path / "model"))
    flags = ["index", "--corpus", str(corpus), "--index", index, "--model", model, "--keep", "year", "--json"]
    assert main(flags) == 0
    assert json.loads(capsys.readouterr().out)["added"] == 5
    assert main(flags) == 0
    assert json.loads(capsys.readouterr().out)["added"] == 0

    info = asyncio.run(lance_manifest(index)).embedder
    assert info is not None
    options = ScorerOptions(model=info.model, revision=info.revision, precision=info.precision)
    embedder = load_embedder(options)
    assert embedder.card.fingerprint == info.fingerprint

    async def search() -> list[tuple[str | int, float]]:
        retriever = await open_lance(index, STORAGE, embedder.queries, embedder.card.fingerprint)
        found = await retriever.search("pets", 3, "dense", "year > 2001")
        return list(zip(found.ids, found.scores, strict=True))

    kept = [d for d in DOCUMENTS if (d["year"] or 0) > 2001]
    texts = [f"{d['title']} {d['text']}".strip() for d in kept]
    expected = (embedder.queries(["pets"]) @ embedder.documents(texts).T)[0]
    best = np.argsort(-expected)
    found = asyncio.run(search())
    assert [name for name, _ in found] == [kept[i]["_id"] for i in best]
    np.testing.assert_allclose([score for _, score in found], expected[best], atol=1e-5)

    other = load_embedder(ScorerOptions(model=model, max_length=16))
    with pytest.raises(UsageError, match="fingerprint"):
        asyncio.run(open_lance(index, STORAGE, other.queries, other.card.fingerprint))


@pytest.mark.filterwarnings("ignore")  # of pymilvus' own dependencies
def test_the_same_command_builds_in_milvus(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite")
    corpus, index = write_beir(tmp_path / "corpus.jsonl"), str(tmp_path / "index.db")
    assert main(["index", "--corpus", str(corpus), "--index", index, "--quiet"]) == 0

    async def search() -> Found:
        retriever = await open_retriever(index, STORAGE)
        found = await retriever.search("salt", 3, "sparse")
        retriever.close()
        return found

    assert asyncio.run(search()).ids == ("sea",)


def test_a_bad_corpus_is_a_sentence_and_a_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write_beir(tmp_path / "corpus.jsonl", [{"name": "x", "body": "y"}])
    assert main(["index", "--corpus", str(corpus), "--index", str(tmp_path / "index")]) == 2
    assert "--columns.text" in capsys.readouterr().err
    assert not (tmp_path / "index").exists()


def test_columns_can_be_mapped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write_beir(tmp_path / "corpus.jsonl", [{"name": "x", "body": "y"}])
    flags = ["--columns.doc-id", "name", "--columns.text", "body", "--language", "none"]
    assert main(["index", "--corpus", str(corpus), "--index", str(tmp_path / "index"), *flags]) == 0
    assert "is whole: 1 document," in capsys.readouterr().out
