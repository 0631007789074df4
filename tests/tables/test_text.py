"""What is rejected for its size gives its memory back: a shard may hold thousands of such rows."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from rankmill.settings.rerank import Columns
from rankmill.tables import canonical
from rankmill.tables.schema import Layout, layout_of
from rankmill.tables.text import emptied, read_text

HUGE = ["dog", "z" * 1_000_000, "cat", None, "z" * 1_000_000]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_texts_that_are_too_large_leave_nothing_behind(kind: pa.DataType) -> None:
    found = read_text(pa.array(HUGE, kind), 1000)
    assert found.values.to_pylist() == ["dog", None, "cat", None, None]
    assert found.too_large is not None
    assert found.too_large.to_pylist() == [False, True, False, False, True]
    assert found.values.nbytes < 1000


def test_so_do_texts_that_are_no_utf8() -> None:
    values = pa.array([b"dog", b"\xff" * 1_000_000], pa.binary())
    text = pa.StringArray.from_buffers(2, *values.buffers()[1:], values.buffers()[0])
    found = read_text(text, 10_000_000)
    assert found.values.to_pylist() == ["dog", None]
    assert found.values.nbytes < 1000


def layout() -> Layout:
    schema = pa.schema([(name, pa.string()) for name in ("query_id", "query", "doc_id", "text", "title")])
    found, problems = layout_of(schema, Columns(), (), None)
    assert found is not None, problems
    return found


def test_so_do_texts_that_are_too_much_together() -> None:
    texts = ["a" * 600_000, "b" * 600_000, "c" * 600_000]
    nothing = pa.nulls(3, pa.string())
    table = pa.table({"query": pa.array(["q"] * 3, pa.large_string()), "document": pa.array(texts, pa.large_string())})
    table = table.append_column("reason", nothing).append_column("detail", nothing)
    bounded, used = canonical.withhold(table, 1_000_000)
    assert used == 600_001
    assert bounded.column("document").to_pylist() == [texts[0], None, None]
    assert bounded.column("reason").to_pylist() == [None, "text_too_large", "text_too_large"]
    assert bounded.nbytes < 700_000


@pytest.mark.parametrize(
    ("titles", "bodies", "documents"),
    [
        (["A", "", None, "B"], ["dog", "cat", "fox", None], ["A dog", "cat", "fox", None]),
        ([None], [""], [""]),
        (["A"], [""], ["A "]),
        ([], [], []),
    ],
)
def test_a_title_comes_before_the_text(titles: list[str], bodies: list[str], documents: list[str]) -> None:
    columns = {"title": pa.array(titles, pa.large_string()), "text": pa.array(bodies, pa.large_string())}
    assert canonical.document_text(columns, layout()).to_pylist() == documents


def test_the_document_takes_no_more_room_than_its_parts() -> None:
    parts = {"title": pa.array(["t" * 1000] * 1000, pa.large_string()), "text": pa.array(["x" * 1000] * 1000)}
    parts["text"] = parts["text"].cast(pa.large_string())
    assert canonical.document_text(parts, layout()).nbytes < 1.01 * sum(part.nbytes for part in parts.values())
    assert canonical.document_text(parts, replace(layout(), title=False)) is parts["text"]


def test_emptied_keeps_the_others_where_they_are() -> None:
    values = pa.array(["a", "b", None, "d"], pa.large_string())
    where = pa.array(np.array([True, False, False, False]))
    assert emptied(values, where).to_pylist() == [None, "b", None, "d"]
