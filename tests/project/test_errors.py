"""Errors cross process borders: from Ray workers to the driver."""

import pickle
from typing import Any

import pytest
from ray import cloudpickle

from rankmill import errors
from rankmill.errors import InputError, NonFiniteScoreError, RankmillError


def family(base: type[RankmillError]) -> list[type[RankmillError]]:
    return [base, *(kind for child in base.__subclasses__() for kind in family(child))]


KINDS = [kind for kind in family(RankmillError) if kind.__module__ == errors.__name__]

EXAMPLES = [
    *(kind("one sentence, with 2 of 3 numbers") for kind in KINDS),
    InputError("2 columns are missing", ["a.parquet: text", "b.parquet: query_id"]),
    NonFiniteScoreError("2 pairs have no finite score", [3, 7]),
]


def test_every_error_of_the_module_is_found() -> None:
    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert {kind.__name__ for kind in KINDS} == defined


@pytest.mark.parametrize("pickler", [pickle, cloudpickle], ids=["pickle", "cloudpickle"])
@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_error_survives_pickling(error: RankmillError, pickler: Any) -> None:
    copy = pickle.loads(pickler.dumps(error))  # noqa: S301  our own bytes
    assert type(copy) is type(error)
    assert copy.args == error.args
    assert str(copy) == str(error)
    assert copy.exit_code == error.exit_code
    assert vars(copy) == vars(error)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_every_error_says_its_sentence(error: RankmillError) -> None:
    assert str(error).startswith(str(error.args[0]))
    assert 1 <= error.exit_code <= 7
