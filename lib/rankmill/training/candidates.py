"""Collections in BEIR layout as candidates for `rankmill rerank` and `rankmill bench`: a row per query and document."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from rankmill.errors import InputError
from rankmill.tables.trec import read_run
from rankmill.training.collections import first_stage_run, read_documents, read_grades, read_queries
from rankmill.training.measure import best, texts_of_run


def candidates(folders: Sequence[Path], queries: int | None, depth: int) -> pa.Table:
    """The first documents of the first judged queries of each collection's `run.*.trec`.

    Args:
        folders: collections.
        queries: of each collection, in the order of its queries file; None is all that are judged.
        depth: documents per query.

    Returns:
        `query_id, query, doc_id, title, text, retrieval_score`; the collections one after another.

    Raises:
        InputError: a collection lacks a file, or two collections share a query id.
    """
    tables = [_of_one(folder, queries, depth) for folder in folders]
    seen: set[str] = set()
    for folder, table in zip(folders, tables, strict=True):
        ids = set(table["query_id"].to_pylist())
        if ids & seen:
            raise InputError(f"{folder} shares query ids with an earlier collection.", sorted(ids & seen)[:20])
        seen |= ids
    return pa.concat_tables(tables)


def _of_one(folder: Path, queries: int | None, depth: int) -> pa.Table:
    texts = read_queries(folder)
    grades = read_grades(folder)
    wanted = [query_id for query_id in texts if query_id in grades][:queries]
    run = best(read_run(str(first_stage_run(folder))), wanted, depth)
    documents = {document.doc_id: document for document in read_documents(folder)}
    found = texts_of_run(folder, "documents", run["doc_id"].to_pylist(), documents)
    return pa.table(
        {
            "query_id": run["query_id"],
            "query": pa.array([texts[query_id] for query_id in run["query_id"].to_pylist()], pa.string()),
            "doc_id": run["doc_id"],
            "title": pa.array([document.title for document in found], pa.string()),
            "text": pa.array([document.body for document in found], pa.string()),
            "retrieval_score": run["score"],
        }
    )
