"""BM25 over documents in memory, by `bm25s`: the first stage of the demonstration, and an honest baseline.

Scores are Lucene's variant (Kamphuis et al., ECIR 2020, "Which BM25 do you mean?"), which is never negative:

    score(q, d) = sum over tokens t of q, with repetition:  ln(1 + (N - n_t + 0.5) / (n_t + 0.5)) * tf / (tf + K_d)
    K_d = k1 * (1 - b + b * |d| / mean |d|)

with N documents, n_t of them holding t, and tf occurrences of t in d. k1 = 0.9 and b = 0.4 are the values that Anserini
uses throughout its published baselines.
"""

import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

import bm25s
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)

K1 = 0.9
B = 0.4

CANDIDATES = pa.schema(
    [
        ("query_id", pa.string()),
        ("query", pa.string()),
        ("doc_id", pa.string()),
        ("title", pa.string()),
        ("text", pa.string()),
        ("retrieval_score", pa.float64()),
    ]
)
"""Columns of `retrieve`."""

# Lucene's default English list, plus the words that make a search box entry a question.
_STOP_TEXT = """
a an and are as at be but by for if in into is it no not of on or such that the their then there these they this
to was will with how do does did i my me we you your what which when where why can could should would want need
from so than its without
"""
STOP_WORDS = frozenset(_STOP_TEXT.split())

_WORD = re.compile(r"[^\W_]+(?:_+[^\W_]+)*")
_SEAM = re.compile(r"_+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")  # snake_case, camelCase, HTTPServer


def tokens(text: str) -> list[str]:
    """Lower-case words of `text`, in order, without stop words.

    Names in code are cut at dots, and give both themselves and the words they are made of, so that a person's words
    find them: `os.get_exec_path` → os, get_exec_path, get, exec, path; `JSONDecoder` → jsondecoder, json, decoder.
    """
    return [token for token in _all_tokens(text) if token not in STOP_WORDS]


def _all_tokens(text: str) -> Iterator[str]:
    for word in _WORD.findall(text):
        pieces = _SEAM.split(word)
        yield word.lower()
        if len(pieces) > 1:
            yield from (piece.lower() for piece in pieces)


def retrieve(queries: pa.Table, documents: pa.Table, k: int) -> pa.Table:
    """The best `k` documents of every query.

    Args:
        queries: `query_id, query`, strings.
        documents: `doc_id, title, text`, strings; a document is searched as `title + " " + text`.
        k: candidates per query, at least 1.

    Returns:
        Columns of `CANDIDATES`; queries in input order, rows of one query together, by score descending, equal scores
        in the order of `documents`. Only documents that share a token with the query are candidates, so that a query
        may have fewer than `k` of them, or none at all.
    """
    if k < 1:
        raise ValueError(f"k is {k}; a query needs at least 1 candidate.")
    rows: list[NDArray[np.int64]] = []
    scores: list[NDArray[np.float64]] = []
    index = _index(documents)
    for query in queries["query"].to_pylist():
        best, best_scores = _best(index, tokens(query), k)
        rows.append(best)
        scores.append(best_scores)
    counts = [len(row) for row in rows]
    taken_queries = queries.select(["query_id", "query"]).take(np.repeat(np.arange(len(counts)), counts))
    taken_documents = documents.select(["doc_id", "title", "text"]).take(_concatenate(rows, np.int64))
    columns = [*taken_queries.columns, *taken_documents.columns, pa.array(_concatenate(scores, np.float64))]
    return pa.table(columns, names=CANDIDATES.names).cast(CANDIDATES)


def _index(documents: pa.Table) -> bm25s.BM25 | None:
    """The index, or None where no document holds a token (`bm25s` refuses an empty vocabulary)."""
    pairs = zip(documents["title"].to_pylist(), documents["text"].to_pylist(), strict=True)
    corpus = [tokens(f"{title or ''} {text or ''}") for title, text in pairs]
    if not any(corpus):
        return None
    index = bm25s.BM25(method="lucene", k1=K1, b=B)
    index.index(corpus, show_progress=False)
    return index


def _best(index: bm25s.BM25 | None, query_tokens: list[str], k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Row numbers and scores of the best `k` documents with a score above 0; ties in row order."""
    known = [token for token in query_tokens if index is not None and token in index.vocab_dict]
    if index is None or not known:
        return np.empty(0, np.int64), np.empty(0, np.float64)
    scores = np.asarray(index.get_scores(known), dtype=np.float64)
    matching = np.flatnonzero(scores > 0)
    best = matching[np.argsort(-scores[matching], kind="stable")[:k]]
    return best, scores[best]


def _concatenate(parts: Sequence[NDArray[T]], dtype: type[T]) -> NDArray[T]:
    return np.concatenate(parts) if parts else np.empty(0, dtype)
