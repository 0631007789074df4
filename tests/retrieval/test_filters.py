"""Filters: what they mean, and that nothing but tests of stored columns gets through."""

import contextlib
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankmill.errors import UsageError
from rankmill.retrieval.filters import MAX_CHARACTERS, Compare, IsNull, Joined, Kind, Like, OneOf, parse, render
from rankmill.retrieval.lance import _sql as lance_test

COLUMNS: dict[str, Kind] = {"doc_id": "string", "year": "integer", "price": "number", "open": "boolean"}


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("year >= 2000", Compare("year", ">=", 2000)),
        ("price<-1.5e3", Compare("price", "<", -1500.0)),
        ("doc_id <> 'it''s'", Compare("doc_id", "!=", "it's")),
        ("open = TRUE", Compare("open", "=", True)),
        ("year not in (1, 2)", OneOf("year", (1, 2), negated=True)),
        ("doc_id like 'a%'", Like("doc_id", "a%")),
        ("price is not null", IsNull("price", negated=True)),
        (
            "year = 1 or year = 2 and open = false",
            Joined(
                "OR",
                (
                    Compare("year", "=", 1),
                    Joined("AND", (Compare("year", "=", 2), Compare("open", "=", False))),
                ),
            ),
        ),
        (
            "not (year < 1 and open = true)",
            Joined("OR", (Compare("year", ">=", 1), Compare("open", "!=", True))),
        ),
        ("NOT NOT doc_id = ''", Compare("doc_id", "=", "")),
    ],
)
def test_filters_mean_what_sql_means(text: str, meaning: object) -> None:
    assert parse(text, COLUMNS) == meaning


@pytest.mark.parametrize(
    "text",
    [
        "",
        "year",
        "year >",
        "year = 1; drop table documents",
        "year = 1 -- comment",
        "year = 1 /* x */",
        "1 = 1",
        "secret = 1",
        "vector = 1",
        "year = 'x'",
        "year = 1.5",
        "year = 99999999999999999999",
        "year = -9223372036854775808",  # LanceDB reads the number before its sign
        "price = 1e999",
        "doc_id = doc_id",
        'doc_id = "x"',
        "doc_id = 'open",
        "doc_id in (select doc_id from documents)",
        "doc_id in ()",
        "length(doc_id) > 3",
        "length(repeat('x', 100000000)) > 0",
        "regexp_like(doc_id, '(a+)+$')",
        "year like '1%'",
        "year not = 1",
        "open = null",
        "(year = 1",
        "year = 1)",
        "year = 1 year = 2",
        "year = 1 and",
        "not",
        "(" * 40 + "year = 1" + ")" * 40,
        "not " * 40 + "year = 1",
        "year = 1" + " " * MAX_CHARACTERS,
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="filter"):
        parse(text, COLUMNS)


def test_errors_do_not_repeat_the_filter() -> None:
    for text in ("password = 'hunter2'", "year = 'hunter2'", "year = 1 hunter2", "doc_id = 'hunter2"):
        with pytest.raises(UsageError) as caught:
            parse(text, COLUMNS)
        assert "hunter2" not in str(caught.value)
        assert "password" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        parse(text, COLUMNS)


ROWS = [
    (f"d{i}", None if i % 3 == 0 else i, None if i % 4 == 0 else i / 2, None if i % 5 == 0 else i % 2 == 0)
    for i in range(20)
]
_LEAVES = st.sampled_from(
    [
        "year > 7",
        "year != 4",
        "year not in (1, 2, 4)",
        "year is null",
        "price <= 3.5",
        "doc_id like 'd1%'",
        "doc_id not like '%1'",
        "open = true",
        "open is not null",
        "doc_id in ('d1', 'it''s', 'd12')",
    ]
)
_FILTERS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda three: f"({' '.join(three)})"),
        inner.map(lambda one: f"not ({one})"),
    ),
    max_leaves=6,
)


@given(_FILTERS)
def test_moving_not_inwards_keeps_the_meaning(text: str) -> None:
    """SQLite, given the filter as it was written and as it is rendered, finds the same rows, NULLs included."""
    database = sqlite3.connect(":memory:")
    database.execute("create table t (doc_id text, year integer, price real, open integer)")
    database.executemany("insert into t values (?, ?, ?, ?)", ROWS)
    ids = [
        database.execute(f"select doc_id from t where {where}").fetchall()  # noqa: S608 - the test's own
        for where in (text, render(parse(text, COLUMNS), lance_test))
    ]
    database.close()
    assert ids[0] == ids[1]
