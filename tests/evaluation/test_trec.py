"""TREC runs: read with every bad line named; written so that reading gives back the same ranking."""

import gzip
import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankmill.errors import InputError
from rankmill.evaluation.read import read_qrels
from rankmill.tables.lines import LINE_BYTES
from rankmill.tables.trec import RUN, read_run, write_run
from tests.memory import MIB, peak_growth


def rankings(rows: list[tuple[object, object, int, float]]) -> pa.Table:
    columns = [list(column) for column in zip(*rows, strict=True)]
    table = pa.table(dict(zip(("query_id", "doc_id", "rank", "score"), columns, strict=True)))
    return table.set_column(3, "score", table["score"].cast(pa.float32()))


def test_reads_columns(tmp_path: Path) -> None:
    path = tmp_path / "run.trec.gz"
    path.write_bytes(gzip.compress(b"q1 Q0 a 1 0.5 tag\nq1\tQ0\tb\t2\t-1e-3\ttag\n\n2 Q0 a 1 7 x\n"))
    found = read_run(str(path))
    assert found.schema.equals(RUN)
    assert found.to_pydict() == {
        "query_id": ["q1", "q1", "2"],
        "doc_id": ["a", "b", "a"],
        "rank": [1, 2, 1],
        "score": [0.5, -0.001, 7.0],
    }


def test_names_every_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    path.write_text(
        "q Q0 a 1 1 t\nq Q0 b\nq Q0 c x 1 t\nq Q0 d 1 high t\nq Q0 e 1 nan t\nq Q0 a 9 0 t\nq Q0 f 9999999999 0 t\n"
    )
    with pytest.raises(InputError) as caught:
        read_run(str(path))
    message = str(caught.value)
    assert "6 unusable lines" in message
    for words in ("line 2: 3 columns", "line 3: the rank is 'x'", "line 4: the score is 'high'", "line 5", "line 1"):
        assert words in message
    assert "line 6: document 'a' was already listed for query 'q' on line 1" in message
    path.write_text("\n")
    with pytest.raises(InputError, match="is empty"):
        read_run(str(path))


@pytest.mark.parametrize("read", [read_run, read_qrels])
def test_a_line_that_is_too_long_is_refused_in_bounded_memory(read: Callable[[str], object], tmp_path: Path) -> None:
    """300 MiB of one letter, in a megabyte and a half."""
    path = tmp_path / "run.trec.gz"
    pack = zlib.compressobj(1, wbits=31)
    with path.open("wb") as out:
        out.write(pack.compress(b"q Q0 a 1\n\n"))
        out.writelines(pack.compress(b"x" * MIB) for _ in range(300))
        out.write(pack.compress(b"\nq Q0 b 1 1 t\n") + pack.flush())
    with peak_growth() as grown, pytest.raises(InputError) as refused:
        read(str(path))
    assert str(refused.value) == f"{path}, line 3: the line has 314,572,801 bytes, and 67,108,864 are allowed."
    assert grown() < 280 * MIB


def test_a_line_of_the_greatest_length_is_read(tmp_path: Path) -> None:
    start, end = "q Q0 ", " 1 0.5 tag\n"
    word = "\u00e9" * ((LINE_BYTES - len(start) - len(end)) // 2)
    (tmp_path / "run.trec").write_text(start + word + end)
    assert read_run(str(tmp_path / "run.trec"))["doc_id"].to_pylist() == [word]
    (tmp_path / "run.trec").write_text(start + word + "ab" + end)
    with pytest.raises(InputError, match=r"line 1: the line has 67,108,86\d bytes"):
        read_run(str(tmp_path / "run.trec"))


def test_writes_ranks_in_order_and_each_pair_once() -> None:
    handle = io.StringIO()
    table = rankings(
        [("q2", "b", 2, 0.5), ("q2", "a", 1, 0.75), ("q2", "a", 3, 0.25), ("q2", "c", 4, 0.125), ("q1", "a", 1, 1)]
    )
    assert write_run(handle, table, "mine") == 4
    assert handle.getvalue() == ("q2 Q0 a 1 0.75 mine\nq2 Q0 b 2 0.5 mine\nq2 Q0 c 3 0.125 mine\nq1 Q0 a 1 1 mine\n")


def test_streams_one_table_after_another(tmp_path: Path) -> None:
    path = tmp_path / "run.trec"
    with path.open("w", encoding="utf-8") as handle:
        for query in range(3):
            write_run(handle, rankings([(query, 5, 1, 0.5)]), "mine")
    assert read_run(str(path))["query_id"].to_pylist() == ["0", "1", "2"]
    assert write_run(str(path), rankings([(1, 5, 1, 0.5)]).slice(0, 0), "mine") == 0
    assert path.read_text() == ""


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(-5, 5), st.floats(-(2.0**60), 2.0**60, width=32)),
        min_size=1,
        max_size=30,
    )
)
def test_what_was_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int, float]]
) -> None:
    rows = []
    seen: set[tuple[int, int]] = set()
    counts: dict[int, int] = {}
    for query, document, score in pairs:
        if (query, document) not in seen:
            seen.add((query, document))
            counts[query] = counts.get(query, 0) + 1
            rows.append((query, document, counts[query], score))
    path = str(tmp_path_factory.mktemp("trec") / "run.trec.gz")
    assert write_run(path, rankings(list(rows)), "mine") == len(rows)
    found = read_run(path)
    order = sorted(range(len(rows)), key=lambda row: [query for query, *_ in rows].index(rows[row][0]))
    assert found["query_id"].to_pylist() == [str(rows[row][0]) for row in order]
    assert found["doc_id"].to_pylist() == [str(rows[row][1]) for row in order]
    assert found["score"].to_numpy().astype(np.float32).tolist() == [rows[row][3] for row in order]


@pytest.mark.parametrize("bad", ["a b", "", " a", "a\tb", "a\nb", "a\u00a0b", "a\u2003b", "a\x1cb", "a\x85b"])
def test_ids_with_whitespace_are_refused(bad: str) -> None:
    handle = io.StringIO()
    for row in ((bad, "d", 1, 1.0), ("q", bad, 1, 1.0)):
        with pytest.raises(InputError, match="whitespace"):
            write_run(handle, rankings([("good", "d", 1, 1.0), row]), "mine")
    with pytest.raises(InputError, match="tag"):
        write_run(handle, rankings([("q", "d", 1, 1.0)]), bad)
    assert handle.getvalue() == ""


def test_null_ids_are_refused() -> None:
    with pytest.raises(InputError, match="null doc_id; there are 1"):
        write_run(io.StringIO(), rankings([("q", None, 1, 1.0), ("q", "a", 2, 0.5)]), "mine")
