"""Training lists: both layouts, and sentences for what is wrong with them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.errors import InputError
from rankmill.training.lists import Candidate, TrainingList, problem_with, read_lists, targets, write_lists

TWO = (Candidate("a", "one", 1.0, 0.9), Candidate("b", "two", None, 0.2))


def test_lists_come_back_as_they_were_written(tmp_path: Path) -> None:
    lists = [
        TrainingList("1", "q", TWO, "train", "made"),
        TrainingList("2", "r", (Candidate("a", "x", 0.0), Candidate("b", "y", 2.0)), "dev"),
    ]
    assert write_lists(lists, tmp_path / "sub" / "lists.parquet") == 2
    found = read_lists([tmp_path / "sub" / "lists.parquet"])
    assert [item.query for item in found] == ["q", "r"]
    assert found[1] == lists[1]
    assert found[0].candidates[0].teacher == pytest.approx(0.9)
    assert found[0].candidates[1].label is None


def test_pairs_are_grouped_by_query_wherever_they_lie(tmp_path: Path) -> None:
    rows = [("7", "d1", 1.0), ("8", "d1", 0.0), ("7", "d2", 0.0), ("8", "d2", 1.0)]
    table = pa.table(
        {
            "query_id": [int(q) for q, _, _ in rows],
            "query": [f"query {q}" for q, _, _ in rows],
            "doc_id": [d for _, d, _ in rows],
            "text": ["text"] * 4,
            "label": [label for _, _, label in rows],
        }
    )
    pq.write_table(table, tmp_path / "pairs.parquet")
    found = read_lists([tmp_path])
    assert [(item.query_id, [c.doc_id for c in item.candidates]) for item in found] == [
        ("7", ["d1", "d2"]),
        ("8", ["d1", "d2"]),
    ]
    assert {item.split for item in found} == {"train"}


def test_missing_columns_are_all_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"query_id": ["1"], "body": ["x"]}), tmp_path / "bad.parquet")
    with pytest.raises(InputError) as caught:
        read_lists([tmp_path / "bad.parquet"])
    for name in ("query", "doc_id", "text"):
        assert f"no column {name!r} (it has body, query_id)" in str(caught.value)


def test_a_path_that_is_missing_and_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_lists([tmp_path / "nowhere.parquet"])
    (tmp_path / "text.parquet").write_text("not parquet")
    with pytest.raises(InputError, match=r"Cannot read .*text\.parquet as Parquet"):
        read_lists([tmp_path / "text.parquet"])


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    write_lists([], tmp_path / "empty.parquet")
    with pytest.raises(InputError, match="has no rows"):
        read_lists([tmp_path / "empty.parquet"])


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        (TrainingList("1", "q", TWO), None),
        (TrainingList("1", " ", TWO), "the query is empty"),
        (TrainingList("1", "q", TWO[:1]), "it has 1 candidate, and a list needs two"),
        (TrainingList("1", "q", TWO, "test"), "its split is 'test'; known are 'train' and 'dev'"),
        (
            TrainingList("1", "q", (TWO[0], Candidate("z", "t", None, float("nan")))),
            "the teacher of document 'z' is nan",
        ),
        (
            TrainingList("1", "q", (TWO[0], Candidate("z", "t"))),
            "1 of 2 candidates have a teacher score; give it to all or to none",
        ),
        (
            TrainingList("1", "q", (Candidate("a", "t", 0.0), Candidate("z", "t"))),
            "it has neither teacher scores nor a label above 0, so there is nothing to learn",
        ),
    ],
)
def test_what_makes_a_list_useless_is_said(items: TrainingList, problem: str | None) -> None:
    assert problem_with(items) == problem


def test_every_useless_list_is_counted_and_the_first_are_named(tmp_path: Path) -> None:
    write_lists(
        [TrainingList("ok", "q", TWO), *(TrainingList(f"bad{i}", "", TWO) for i in range(25))],
        tmp_path / "lists.parquet",
    )
    with pytest.raises(InputError, match=r"25 of 26 training lists cannot be used\. The first 20:") as caught:
        read_lists([tmp_path / "lists.parquet"])
    assert str(caught.value).count("the query is empty") == 20


def test_targets_add_the_bonus_to_the_teacher_or_fall_back_to_labels() -> None:
    assert targets(TrainingList("1", "q", TWO), 0.15) == pytest.approx([1.05, 0.2])
    assert targets(TrainingList("1", "q", (Candidate("a", "x", 2.0), Candidate("b", "y"))), 0.15) == [2.0, 0.0]
