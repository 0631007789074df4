"""The demonstration's questions and their graded answers, read from `questions.jsonl` and checked against a corpus.

A test set: the questions are in a user's words, the answers were judged by reading the documentation of every object
that BM25 or a bi-encoder put among the first 15, and of those the judge knew of. Grade 2 answers the question directly,
grade 1 helps. Never train or tune on it.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rankmill.errors import InputError

GRADES = (1, 2)
"""1: helps; 2: answers the question directly. What is not listed has grade 0."""

_FIELDS = {"query_id", "query", "answers"}
_FILE = Path(__file__).with_name("questions.jsonl")


@dataclass(frozen=True, slots=True)
class Question:
    """One question with its judgements."""

    query_id: str
    query: str
    answers: Mapping[str, int]
    """Grade by doc_id."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What is left of the questions for the corpus at hand, and what is not."""

    questions: tuple[Question, ...]
    dropped_answers: tuple[tuple[str, str], ...]
    """(query_id, doc_id) of judgements whose document the corpus lacks."""
    dropped_questions: tuple[str, ...]
    """query_id of questions that have no document of grade 2 left."""


def read_questions(path: Path = _FILE) -> tuple[Question, ...]:
    """All questions of a file, in its order: one JSON object a line, `query_id, query, answers: {doc_id: grade}`.

    Raises:
        InputError: lines that are no such object, ids or questions that occur twice, grades other than 1 and 2,
            questions without an answer of grade 2; every one of them is named.
    """
    questions: list[Question] = []
    problems: list[str] = []
    seen: set[str] = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        question = _parse(line)
        if isinstance(question, str):
            problems.append(f"line {number}: {question}")
            continue
        for value in (question.query_id, question.query):
            if value in seen:
                problems.append(f"line {number}: {value!r} occurs twice")
            seen.add(value)
        questions.append(question)
    if problems:
        raise InputError(f"{path} has {len(problems)} unusable lines.", problems)
    return tuple(questions)


def _parse(line: str) -> Question | str:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return f"not JSON ({error})"
    if not isinstance(value, dict) or set(value) != _FIELDS:
        return f"expected an object with the fields {', '.join(sorted(_FIELDS))}"
    query_id, query, answers = value["query_id"], value["query"], value["answers"]
    if not (isinstance(query_id, str) and query_id and isinstance(query, str) and query.strip()):
        return "query_id and query must be strings that are not empty"
    if not isinstance(answers, dict) or not all(type(grade) is int and grade in GRADES for grade in answers.values()):
        return "answers must give each doc_id the grade 1 or 2"
    if max(GRADES) not in answers.values():
        return f"{query_id} has no answer of grade {max(GRADES)}"
    return Question(query_id, query, answers)


def check_questions(questions: Iterable[Question], doc_ids: Collection[str]) -> Checked:
    """Drop judgements of objects that this Python lacks, and questions that lose every direct answer by it.

    Args:
        questions: as read.
        doc_ids: of the corpus.
    """
    known = frozenset(doc_ids)
    kept: list[Question] = []
    dropped_answers: list[tuple[str, str]] = []
    dropped_questions: list[str] = []
    for question in questions:
        answers = {doc_id: grade for doc_id, grade in question.answers.items() if doc_id in known}
        dropped_answers += [(question.query_id, doc_id) for doc_id in question.answers if doc_id not in known]
        if max(GRADES) in answers.values():
            kept.append(replace(question, answers=answers))
        else:
            dropped_questions.append(question.query_id)
    return Checked(tuple(kept), tuple(dropped_answers), tuple(dropped_questions))


def qrels_of(questions: Iterable[Question]) -> dict[str, dict[str, int]]:
    """Judgements by query and document, as `rankmill.evaluation.evaluate` takes them."""
    return {question.query_id: dict(question.answers) for question in questions}
