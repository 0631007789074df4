"""Corpora are read in order, from any document on, in batches; what is wrong with them is said."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.errors import InputError
from rankmill.retrieval.corpus import open_corpus
from rankmill.settings.storage import StorageSettings
from tests.retrieval.corpora import DOCUMENTS, numbered, write_beir

STORAGE = StorageSettings()


def ids(tables: list[pa.Table]) -> list[str]:
    return [value for table in tables for value in table["doc_id"].to_pylist()]


def parquet(path: Path, table: pa.Table) -> Path:
    pq.write_table(table, path, row_group_size=7)
    return path


@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.jsonl.gz"])
def test_beir(tmp_path: Path, name: str) -> None:
    corpus = open_corpus(str(write_beir(tmp_path / name)), STORAGE, keep=("year",))
    (table,) = corpus.read(0, 100)
    assert table.schema.names == ["doc_id", "title", "text", "year"]
    assert table["doc_id"].to_pylist() == [document["_id"] for document in DOCUMENTS]
    assert table["text"].to_pylist() == [document["text"] for document in DOCUMENTS]
    assert table["year"].to_pylist() == [2001, 2002, None, 2004, 2005]


def test_every_start_and_batch_gives_the_rest_in_order(tmp_path: Path) -> None:
    expected = [document["_id"] for document in numbered(50)]
    write_beir(tmp_path / "b.jsonl.gz", numbered(50)[20:])
    write_beir(tmp_path / "a.jsonl", numbered(50)[:20])
    whole = pa.Table.from_pylist(numbered(50)).rename_columns(["doc_id", "title", "text", "year"])
    parquet(tmp_path / "one.parquet", whole)
    for uri in (str(tmp_path / "*.jsonl*"), str(tmp_path / "one.parquet")):
        corpus = open_corpus(uri, STORAGE)
        for skip in (0, 1, 7, 19, 20, 21, 49, 50):
            for rows in (1, 6, 1000):
                tables = list(corpus.read(skip, rows))
                assert ids(tables) == expected[skip:]
                assert all(table.num_rows <= rows for table in tables)


def test_small_files_become_large_batches(tmp_path: Path) -> None:
    for number in range(10):
        write_beir(tmp_path / f"{number}.jsonl", numbered(50)[number * 5 : number * 5 + 5])
    tables = list(open_corpus(str(tmp_path), STORAGE).read(0, 20))
    assert [table.num_rows for table in tables] == [20, 20, 10]


def test_integer_ids_and_mapped_columns_and_no_title(tmp_path: Path) -> None:
    table = pa.table({"key": pa.array([3, 1], pa.int32()), "body": pa.array(["a", None], pa.large_string())})
    corpus = open_corpus(str(parquet(tmp_path / "c.parquet", table)), STORAGE, doc_id="key", text="body")
    (found,) = corpus.read(0, 10)
    assert found.to_pydict() == {"doc_id": [3, 1], "title": ["", ""], "text": ["a", ""]}


@pytest.mark.parametrize(
    ("documents", "said"),
    [
        ([*DOCUMENTS, {"title": "x", "text": "y"}], "document 6 has no id"),
        ([*DOCUMENTS, {"_id": "x", "text": 7}], "document 6 is no JSON object"),
        ([*DOCUMENTS, {"_id": 7, "text": "x"}], "document 6 is no JSON object"),
    ],
)
def test_a_bad_document_is_named(tmp_path: Path, documents: list[dict[str, object]], said: str) -> None:
    corpus = open_corpus(str(write_beir(tmp_path / "c.jsonl", documents)), STORAGE)
    with pytest.raises(InputError, match=said):
        list(corpus.read(0, 10))


def test_a_line_beyond_all_measure_is_refused(tmp_path: Path) -> None:
    path = write_beir(tmp_path / "c.jsonl.gz", [*DOCUMENTS, {"_id": "x", "text": "z" * (65 << 20)}])
    with pytest.raises(InputError, match=r"c\.jsonl\.gz, line 6 .*68,15\d,\d{3} bytes, and 67,108,864 are allowed"):
        list(open_corpus(str(path), STORAGE).read(0, 10))


def test_bad_columns_are_all_named(tmp_path: Path) -> None:
    table = pa.table({"doc_id": [1.5], "text": [["a"]], "vector": [1], "a b": [1]})
    with pytest.raises(InputError) as caught:
        open_corpus(str(parquet(tmp_path / "c.parquet", table)), STORAGE, keep=("vector", "a b", "gone"))
    for culprit in ("doc_id is double", "text is list", "vector cannot be kept", "a b cannot", "gone is not there"):
        assert culprit in str(caught.value)


def test_a_changed_file_changes_the_digest(tmp_path: Path) -> None:
    path = write_beir(tmp_path / "c.jsonl")
    before = open_corpus(str(path), STORAGE).digest
    assert open_corpus(str(path), STORAGE).digest == before
    write_beir(path, DOCUMENTS[1:])
    assert open_corpus(str(path), STORAGE).digest != before
