"""A run with its queries and its corpus, in every form, and one in which much is wrong."""

import gzip
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from tests.batch.conftest import Row, write_jsonl, write_parquet

Tables = dict[str, str]


def shared_candidates(rows: list[Row]) -> list[Row]:
    """Pairs in which every third document is a candidate of all queries."""
    hot = [row for row in rows if row["query_id"] == "q12"][::3]
    queries = {row["query_id"]: row["query"] for row in rows}
    more = [{**row, "query_id": key, "query": query} for key, query in queries.items() if key != "q12" for row in hot]
    pairs = rows + more
    return sorted(pairs, key=lambda row: (row["query_id"], -row["retrieval_score"]))


def tables_of(**paths: Path) -> Tables:
    return {name: str(path) for name, path in paths.items()}


def texts_of(pairs: list[Row]) -> tuple[list[Row], list[Row]]:
    """Queries and documents as BEIR has them, in no order."""
    queries = {row["query_id"]: {"_id": row["query_id"], "text": row["query"]} for row in pairs}
    documents = {row["doc_id"]: {"_id": row["doc_id"], "title": row["title"], "text": row["text"]} for row in pairs}
    draw = random.Random(3)  # noqa: S311 - test data
    return draw.sample([*queries.values()], len(queries)), draw.sample([*documents.values()], len(documents))


def write_trec(path: Path, pairs: list[Row]) -> Path:
    body = "".join(f"{p['query_id']} Q0 {p['doc_id']} {n} {p['retrieval_score']} bm25\n" for n, p in enumerate(pairs))
    path.write_bytes(gzip.compress(body.encode()) if path.suffix == ".gz" else body.encode())
    return path


def run_rows(pairs: list[Row]) -> list[Row]:
    return [{name: row[name] for name in ("query_id", "doc_id", "retrieval_score", "lang")} for row in pairs]


def beir(folder: Path, pairs: list[Row]) -> Tables:
    queries, documents = texts_of(pairs)
    return tables_of(
        source=write_trec(folder / "run.trec", pairs),
        queries=write_jsonl(folder / "queries.jsonl", queries),
        corpus=write_jsonl(folder / "corpus.jsonl.gz", documents),
    )


def trec_gz_in_parts(folder: Path, pairs: list[Row]) -> Tables:
    queries, documents = texts_of(pairs)
    (folder / "runs").mkdir()
    for number in range(3):  # a query lies in all of them
        write_trec(folder / "runs" / f"{number}.trec.gz", pairs[number::3])
    for number in range(2):
        write_jsonl(folder / "corpus" / f"{number}.jsonl", documents[number::2])
    return tables_of(
        source=folder / "runs",
        queries=write_jsonl(folder / "queries.jsonl.gz", queries),
        corpus=folder / "corpus",
    )


def parquet(folder: Path, pairs: list[Row]) -> Tables:
    queries, documents = texts_of(pairs)
    named = [{"query_id": row["_id"], "query": row["text"]} for row in queries]
    schema = pa.schema({"doc_id": pa.large_string(), "title": pa.string(), "text": pa.string()})
    return tables_of(
        source=write_parquet(folder / "run.parquet", run_rows(pairs), row_group_size=50),
        queries=write_parquet(folder / "queries.parquet", named),
        corpus=write_parquet(
            folder / "corpus.parquet", [{"doc_id": row.pop("_id"), **row} for row in documents], schema, 20
        ),
    )


FORMS: dict[str, Callable[[Path, list[Row]], Tables]] = {
    "beir": beir,
    "trec.gz in parts": trec_gz_in_parts,
    "parquet": parquet,
}
"""Ways to store one and the same run with its texts."""


def bad_tables(folder: Path) -> Tables:
    run = ["q Q0 good 1 9 x", "q Q0 gone 2 8 x", "nobody Q0 good 1 7 x", "q Q0 empty 3 6 x", "q Q0 typed 4 5 x"]
    run += ["q good", "null Q0 good 1 1 x", "q Q0 twice 5 4 x"]
    (folder / "run.trec").write_text("\n\n".join(run) + "\n")
    corpus: list[Any] = [
        {"_id": "good", "text": "dog"},
        {"_id": "empty", "title": "a", "text": None},
        {"_id": "typed", "text": 5},
        {"text": "no id"},
        {"_id": "twice", "text": "dog"},
        {"_id": "twice", "text": "another dog"},
    ]
    return tables_of(
        source=folder / "run.trec",
        queries=write_jsonl(folder / "queries.jsonl", [{"_id": "q", "text": "fox"}, {"_id": "null", "text": None}]),
        corpus=write_jsonl(folder / "corpus.jsonl", corpus),
    )
