"""Collections as candidates in Parquet, through the job script."""

import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rankmill.errors import InputError
from rankmill.training.candidates import candidates

JOB = Path(__file__).parents[2] / "jobs" / "candidates.py"


def test_the_first_documents_of_the_first_queries_in_the_order_of_the_run(collection: Path, tmp_path: Path) -> None:
    output = tmp_path / "pairs.parquet"
    flags = ["--collections", str(collection), "--queries", "2", "--depth", "3", "--output", str(output)]
    said = subprocess.run([sys.executable, str(JOB), *flags], check=True, capture_output=True, text=True).stdout
    assert said.split() == ["6", "pairs", str(output)]
    table = pq.read_table(output)
    assert table.column_names == ["query_id", "query", "doc_id", "title", "text", "retrieval_score"]
    # the run is in document order; best() keeps the queries in the order of their ids
    assert table["query_id"].to_pylist() == ["qsnow"] * 3 + ["qwind"] * 3
    assert table["query"].to_pylist() == ["snow"] * 3 + ["wind"] * 3
    assert table["doc_id"].to_pylist() == ["d0", "d1", "d2"] * 2
    assert table["retrieval_score"].to_pylist() == [0, -1, -2] * 2
    assert table["text"][0].as_py().startswith(table["title"][0].as_py())


def test_all_judged_queries_unless_told_otherwise(collection: Path) -> None:
    assert len(candidates([collection], None, 100)) == 18


def test_two_collections_with_the_same_query_ids_are_refused(collection: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(collection, other)
    with pytest.raises(InputError, match="other shares query ids"):
        candidates([collection, other], None, 5)
