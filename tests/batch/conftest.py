"""A small input in every form, and a real model to score it with."""

import gzip
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.batch.reader import polled
from tests.tiny_models import CORPUS, save_tiny_model

Row = dict[str, Any]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT cross-encoder."""
    return save_tiny_model(tmp_path_factory.mktemp("model"), "bert")


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    """13 queries with 1 to 25 candidates each, of texts from a few words to more than the model can read."""
    draw = random.Random(7)  # noqa: S311 - test data
    words = " ".join(CORPUS).split()
    rows: list[Row] = []
    for query in range(13):
        question = " ".join(draw.sample(words, 6))
        for candidate in range(1 + 2 * query):
            text = " ".join(draw.choices(words, k=draw.randint(3, 160)))
            rows.append(
                {
                    "query_id": f"q{query}",
                    "query": question,
                    "doc_id": f"d{query}-{candidate}",
                    "title": draw.choice(["", "A title", None]),
                    "text": text,
                    "retrieval_score": float(100 - candidate // 2),
                    "lang": draw.choice(["en", "de"]),
                }
            )
    return rows


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[None]:
    """Somebody looks at the output in `out` all the time (F20)."""
    with polled(tmp_path / "out"):
        yield


def nested(rows: list[Row]) -> list[Row]:
    """The same input with one row per query."""
    queries: dict[str, Row] = {}
    for row in rows:
        query = {"query_id": row["query_id"], "query": row["query"], "candidates": []}
        candidate = {key: value for key, value in row.items() if key not in {"query_id", "query"}}
        queries.setdefault(row["query_id"], query)["candidates"].append(candidate)
    return list(queries.values())


def write_parquet(path: Path, rows: list[Row], schema: pa.Schema = None, row_group_size: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, row_group_size=row_group_size)
    return path


def write_jsonl(path: Path, rows: list[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    body = "".join(json.dumps(row, ensure_ascii=bool(n % 2)) + "\n" * (1 + n % 3) for n, row in enumerate(rows))
    path.write_bytes(gzip.compress(body.encode()) if path.suffix == ".gz" else body.encode())
    return path


def _pairs(folder: Path, rows: list[Row]) -> Path:
    return write_parquet(folder / "pairs.parquet", rows)


def _small_row_groups(folder: Path, rows: list[Row]) -> Path:
    return write_parquet(folder / "pairs.parquet", rows, row_group_size=7)


def _seven_files(folder: Path, rows: list[Row]) -> Path:
    size = -(-len(rows) // 7)
    for number in range(7):  # cuts queries, so that some lie at the end of one file and the start of the next
        write_parquet(folder / "deep" / f"{number}.parquet", rows[number * size : (number + 1) * size])
    (folder / "_SUCCESS").write_text("written by Spark")
    return folder


def _shuffled_files(folder: Path, rows: list[Row]) -> Path:
    shuffled = random.Random(3).sample(rows, len(rows))  # noqa: S311 - test data
    for number in range(3):
        write_parquet(folder / f"{number}.parquet", shuffled[number::3], row_group_size=20)
    return folder / "*.parquet"


def _jsonl(folder: Path, rows: list[Row]) -> Path:
    return write_jsonl(folder / "pairs.jsonl", rows)


def _jsonl_gz_shuffled(folder: Path, rows: list[Row]) -> Path:
    return write_jsonl(folder / "pairs.jsonl.gz", random.Random(5).sample(rows, len(rows)))  # noqa: S311 - test data


def _nested_parquet(folder: Path, rows: list[Row]) -> Path:
    return write_parquet(folder / "nested.parquet", nested(rows), row_group_size=4)


def _nested_jsonl(folder: Path, rows: list[Row]) -> Path:
    return write_jsonl(folder / "nested.jsonl", nested(rows))


def _nested_split(folder: Path, rows: list[Row]) -> Path:
    for number in range(2):  # half of each query's candidates in either file
        write_parquet(folder / f"{number}.parquet", nested(rows[number::2]))
    return folder


FORMS: dict[str, Callable[[Path, list[Row]], Path]] = {
    "one file": _pairs,
    "small row groups": _small_row_groups,
    "seven files": _seven_files,
    "shuffled over files": _shuffled_files,
    "jsonl": _jsonl,
    "jsonl.gz, shuffled": _jsonl_gz_shuffled,
    "nested": _nested_parquet,
    "nested jsonl": _nested_jsonl,
    "nested, queries split over files": _nested_split,
}
"""Ways to store one and the same input."""
