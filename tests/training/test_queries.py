"""Queries made from texts."""

import numpy as np
import pytest

from rankmill.training.queries import content_words, from_docstring, from_passage, keywords, sentences

TEXT = (
    "Port Moresby is the capital and largest city of Papua New Guinea. It lies on the shores of the Gulf of Papua. "
    "Short one. The city emerged as a trade centre in the second half of the 19th century."
)


def test_sentences_drop_fragments_and_join_lines() -> None:
    assert sentences("One two three four five.\nSix seven eight nine\nten. No.") == [
        "One two three four five.",
        "Six seven eight nine ten.",
    ]


def test_content_words_are_distinct_and_without_stop_words() -> None:
    assert content_words("The cat and the Cat in T-cell 42") == ["cat", "T-cell", "42"]


def test_keywords_of_nothing_are_nothing() -> None:
    rng = np.random.default_rng(0)
    assert keywords("the of and", 3, rng) == ""
    assert len(keywords(TEXT, 4, rng).split()) == 4


def test_every_kind_of_query_comes_up_and_labels_are_probabilities() -> None:
    rng = np.random.default_rng(0)
    made = [from_passage("Port Moresby", TEXT, rng) for _ in range(300)]
    assert {item.kind for item in made} == {
        "title",
        "title-form",
        "keywords",
        "keywords-sentence",
        "window",
        "sentence",
    }
    assert all(0 <= item.label <= 1 and item.text for item in made)


@pytest.mark.parametrize(
    ("first", "wanted"),
    [
        ("Compute the mean of an array.", "compute the mean of an array"),
        ("Returns a copy of the frame.", "return a copy of the frame"),
        ("Tries each server in turn.", "try each server in turn"),
        ("A lock that knows its owner.", "a lock that knows its owner"),
    ],
)
def test_the_first_sentence_of_a_docstring_reads_like_a_question(first: str, wanted: str) -> None:
    rng = np.random.default_rng(0)
    made = [from_docstring("pkg.thing", f"{first} More words follow here.", (), rng) for _ in range(60)]
    said = [item.text for item in made if item.kind == "docstring"]
    assert said
    assert all(wanted in text for text in said)
    assert len(set(said)) > 3


def test_parameters_are_asked_about() -> None:
    rng = np.random.default_rng(0)
    made = [from_docstring("pkg.read_table", "Read a table from a file.", ("set_up_torch",), rng) for _ in range(60)]
    asked = [item.text for item in made if item.kind == "parameter"]
    assert asked
    assert all("set_up_torch" in text and ("read table" in text or "read_table" in text) for text in asked)
