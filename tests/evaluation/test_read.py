"""Judgements and runs are read from every documented form, and refused with every culprit named."""

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.errors import InputError
from rankmill.evaluation.read import read_qrels, read_results

EXPECTED = {"1": {"d 1": 2, "d2": 0}, "2": {"d3": 1}}


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def gz(path: Path, text: str) -> str:
    path.write_bytes(gzip.compress(text.encode()))
    return str(path)


def parquet(path: Path, **columns: Sequence[object]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path)
    return str(path)


def test_beir(tmp_path: Path) -> None:
    text = "query-id\tcorpus-id\tscore\n1\td 1\t2\n1\td2\t0\n\n2\td3\t1\n"
    assert read_qrels(write(tmp_path / "qrels.tsv", text)) == EXPECTED
    assert read_qrels(gz(tmp_path / "qrels.tsv.gz", text)) == EXPECTED
    assert read_qrels(write(tmp_path / "windows.tsv", "\ufeff" + text.replace("\n", "\r\n"))) == EXPECTED


def test_trec_qrels(tmp_path: Path) -> None:
    found = read_qrels(write(tmp_path / "qrels", "1 0 a 2\n1\t0\tb\t-1\n2 0 c 1\n2 0 c 1\n"))
    assert found == {"1": {"a": 2, "b": -1}, "2": {"c": 1}}


def test_parquet_qrels(tmp_path: Path) -> None:
    uri = parquet(tmp_path / "q.parquet", query_id=[1, 1, 2], doc_id=["d 1", "d2", "d3"], relevance=[2, 0, 1])
    assert read_qrels(uri) == EXPECTED


def test_a_uri() -> None:
    with fsspec.open("memory://evaluation/qrels.tsv", "wt") as handle:
        handle.write("query-id\tcorpus-id\tscore\n1\ta\t1\n")
    assert read_qrels("memory://evaluation/qrels.tsv") == {"1": {"a": 1}}


def test_output_folder_of_a_job(tmp_path: Path) -> None:
    """Parts in order; `_rankmill`, `_rejected` and `_SUCCESS` are not data."""
    folder = tmp_path / "_private" / "out"  # a parent's underscore means nothing
    parquet(folder / "part-000001.parquet", query_id=[2], doc_id=[30], rank=[1], score=[0.5], logit=[1.0])
    parquet(folder / "part-000000.parquet", query_id=[1], doc_id=[10], rank=[1], score=[0.25], logit=[0.0])
    parquet(folder / "_rejected" / "part-000000.parquet", source=["x"])
    parquet(folder / "_rankmill" / "plan.parquet", source=["x"])
    (folder / "_SUCCESS").write_text("{}")
    for uri in (str(folder), f"{folder}/", f"{folder}/*.parquet", folder.as_uri()):
        found = read_results(uri)
        assert found["query_id"].to_pylist() == ["1", "2"]
        assert found["doc_id"].to_pylist() == ["10", "30"]
        assert found["score"].to_pylist() == [0.25, 0.5]
        assert found["rank"].to_pylist() == [1, 1]


def test_parts_with_and_without_rank(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", query_id=["1"], doc_id=["a"], rank=[1], score=[1.0])
    parquet(tmp_path / "b.parquet", query_id=["2"], doc_id=["a"], score=[1])
    assert read_results(str(tmp_path)).column_names == ["query_id", "doc_id", "score"]


def test_nested_rankings(tmp_path: Path) -> None:
    results = [[{"doc_id": 5, "rank": 1, "score": 0.5}, {"doc_id": 4, "rank": 2, "score": 0.25}], [], None]
    parquet(tmp_path / "part-0.parquet", query_id=["a", "b", "c"], candidates=results)
    parquet(tmp_path / "part-1.parquet", query_id=["d"], candidates=[[{"doc_id": 7, "rank": 1, "score": 0.75}]])
    assert read_results(str(tmp_path)).to_pydict() == {
        "query_id": ["a", "a", "d"],
        "doc_id": ["5", "4", "7"],
        "score": [0.5, 0.25, 0.75],
        "rank": [1, 2, 1],
    }
    uri = parquet(tmp_path / "wrong.parquet", query_id=["d"], candidates=[[{"docid": 7, "score": 0.75}]])
    with pytest.raises(InputError, match=r"no column doc_id; it has query_id, docid, score\. Did you mean docid"):
        read_results(uri)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: str(path / "none.tsv"), "does not exist"),
        (lambda path: str(path / "none.parquet"), "does not exist"),
        (str, "holds no Parquet files"),
        (lambda path: f"{path}/*.parquet", "holds no Parquet files"),
        (lambda path: "nonsense://x/y", "cannot be opened"),  # noqa: ARG005
        (lambda path: write(path / "empty", ""), "holds no judgements"),
        (lambda path: write(path / "head.tsv", "query-id\tcorpus-id\tscore\n"), "holds no judgements"),
        (lambda path: write(path / "q", "1 0 a 1\n1 0 b\n1 0 c x\n"), "line 2.*needs the header.*line 3.*'x'"),
        (lambda path: write(path / "q.tsv", "query-id\tcorpus-id\tscore\n1\ta\n"), "line 2: 2 columns instead of 3"),
        (lambda path: write(path / "q", "1 0 a 1\n1 0 a 2\n"), "line 2: document 'a' is judged 2.*but 1"),
        (lambda path: write(path / "q", "x\n" * 1000), "1,000 unusable lines.*and 980 more"),
        (lambda path: write(path / "q.tsv.gz", "1 0 a 1\n"), "named like a gzip file"),
        (lambda path: write(path / "q.parquet", "no"), "q.parquet cannot be read"),
        (lambda path: parquet(path / "q.parquet", query_id=["1"], docid=["a"], relevance=[1]), "Did you mean docid"),
        (lambda path: parquet(path / "q.parquet", query_id=["1", None], doc_id=["a", "b"], relevance=[1, 1]), "1 null"),
        (lambda path: parquet(path / "q.parquet", query_id=["1"], doc_id=["a"], relevance=["high"]), "no int64"),
        (lambda path: parquet(path / "q.parquet", query_id=["1"], doc_id=["a"], relevance=[0.5]), "no int64"),
        (
            lambda path: parquet(path / "q.parquet", query_id=["1", "1"], doc_id=["a", "a"], relevance=[1, 2]),
            "'a' for query '1': 1 and 2",
        ),
    ],
)
def test_unusable_judgements_are_refused(tmp_path: Path, make: Callable[[Path], str], words: str) -> None:
    with pytest.raises(InputError, match=f"(?s){words}"):
        read_qrels(make(tmp_path))


def test_binary_and_damaged_files_are_refused(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"1 0 a 1\n\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_qrels(str(binary))
    cut = tmp_path / "cut.tsv.gz"
    cut.write_bytes(gzip.compress(b"1 0 a 1\n" * 10_000)[:40])
    with pytest.raises(InputError, match="cut short"):
        read_qrels(str(cut))
