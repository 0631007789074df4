"""The questions are well formed, are answered by this interpreter's corpus, and are in a user's words."""

import json
import sys
from pathlib import Path

import pytest

from rankmill.demo.corpus import documents
from rankmill.demo.questions import Question, check_questions, qrels_of, read_questions
from rankmill.errors import InputError


def test_there_are_enough_of_them() -> None:
    questions = read_questions()
    assert len(questions) >= 80
    assert sum(len(question.answers) for question in questions) > 3 * len(questions)


def test_this_python_has_their_answers() -> None:
    checked = check_questions(read_questions(), [name for name, _ in documents()])
    assert len(checked.questions) >= 80
    assert len(checked.dropped_answers) <= 10, checked.dropped_answers  # few objects differ between versions
    if sys.version_info[:2] == (3, 11):
        assert checked.dropped_answers == ()
        assert checked.dropped_questions == ()


def test_questions_are_not_the_documentation_in_disguise() -> None:
    """No question is a docstring's first line, or names its answer with dots or underscores."""
    texts = dict(documents())
    for question in read_questions():
        lower = question.query.lower()
        for doc_id in question.answers:
            first_line = texts.get(doc_id, "").partition("\n")[0].lower().rstrip(".")
            assert lower != first_line
            if "." in doc_id or "_" in doc_id:
                assert doc_id.lower() not in lower


def test_what_the_corpus_lacks_is_dropped_and_named() -> None:
    questions = (Question("q1", "one", {"a": 2, "gone": 1}), Question("q2", "two", {"gone": 2, "a": 1}))
    checked = check_questions(questions, ["a", "b"])
    assert qrels_of(checked.questions) == {"q1": {"a": 2}}
    assert checked.dropped_answers == (("q1", "gone"), ("q2", "gone"))
    assert checked.dropped_questions == ("q2",)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "not JSON"),
        ('{"query_id": "q", "query": "x"}', "the fields answers, query, query_id"),
        ('{"query_id": "", "query": "x", "answers": {"a": 2}}', "not empty"),
        ('{"query_id": "q", "query": "x", "answers": {"a": 3}}', "grade 1 or 2"),
        ('{"query_id": "q", "query": "x", "answers": {"a": true}}', "grade 1 or 2"),
        ('{"query_id": "q", "query": "x", "answers": {"a": 1}}', "no answer of grade 2"),
        (json.dumps({"query_id": "ok", "query": "y", "answers": {"a": 2}}), "'ok' occurs twice"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, problem: str) -> None:
    good = json.dumps({"query_id": "ok", "query": "fine", "answers": {"a": 2}})
    path = tmp_path / "questions.jsonl"
    path.write_text(f"{good}\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match=problem) as caught:
        read_questions(path)
    assert "line 2" in str(caught.value)
