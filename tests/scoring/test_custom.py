"""Scorers of one's own, `python:package.module:Name`: called with the texts as they were, checked when they return."""

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rankmill.errors import ModelError, NonFiniteScoreError, UsageError
from rankmill.scoring.load import check_model, load_encoder, load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.text_encoder import TextEncoder, decode
from tests.scoring.reference import all_pairs

SOURCE = '''
import array

imported = True
not_callable = 3


class Overlap:
    """Words in common."""

    fingerprint = "weights-1"

    def score(self, queries, texts):
        return [float(len(set(q.split()) & set(t.split()))) for q, t in zip(queries, texts, strict=True)]


def lengths(queries, texts):
    assert isinstance(queries, list) and isinstance(texts, list)
    return array.array("d", (len(q) - len(t) / 1000 for q, t in zip(queries, texts, strict=True)))


def one_too_few(queries, texts):
    return [0.0] * (len(queries) - 1)


def square(queries, texts):
    return [[0.0] * len(queries)] * len(queries)


def words(queries, texts):
    return ["high"] * len(queries)


def some_bad(queries, texts):
    return [float("nan") if "bad" in t else None if "none" in t else 1e300 if "huge" in t else 0.5 for t in texts]


def fails(queries, texts):
    raise LookupError("no such model")


class NeedsArguments:
    def __init__(self, path):
        self.path = path

    def score(self, queries, texts):
        return [0.0] * len(queries)


class WithoutScore:
    pass


class OddFingerprint:
    fingerprint = 7

    def score(self, queries, texts):
        return [0.0] * len(queries)
'''


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module of its own for each test, on the path; its name, with `python:` before it."""
    module = f"scorer_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{module}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return f"python:{module}"


def options(model: str) -> ScorerOptions:
    return ScorerOptions(model=model)


def test_a_class(name: str) -> None:
    scorer = load_scorer(options(f"{name}:Overlap"))
    pairs = scorer.encode(["a b c", "x", ""], ["c b", "y", "x"])
    assert scorer.logits(pairs).tolist() == [2.0, 0.0, 0.0]
    assert scorer.logits(pairs).dtype == np.float32
    assert scorer.activation == "identity"


def test_a_function_gets_the_texts_as_they_were(name: str) -> None:
    queries, texts = all_pairs()
    scorer = load_scorer(options(f"{name}:lengths"))
    expected = [len(query) - len(text) / 1000 for query, text in zip(queries, texts, strict=True)]
    np.testing.assert_allclose(scorer.logits(scorer.encode(queries, texts)), expected, rtol=1e-6)


def test_texts_travel_as_bytes() -> None:
    encoder = pickle.loads(pickle.dumps(TextEncoder()))  # noqa: S301 - our own bytes
    queries, texts = all_pairs()
    pairs = encoder.encode(queries, texts)
    assert decode(pairs) == (queries, texts)
    assert pairs.document_starts.tolist() == [len(query.encode()) for query in queries]
    assert not pairs.truncated.any()
    assert (pairs.token_ids.dtype, pairs.offsets.dtype, pairs.document_starts.dtype) == (np.int32, np.int64, np.int32)
    broken = encoder.encode(["a \ud800 b", "\ud83d\ude00"], ["\udc00", "x\udfff"])
    assert decode(broken) == (["a \ufffd b", "\U0001f600"], ["\ufffd", "x\ufffd"])
    assert decode(encoder.encode([], [])) == ([], [])
    with pytest.raises(ValueError, match="2 queries with 1 texts"):
        encoder.encode(["a", "b"], ["c"])


def test_nothing_in_nothing_out(name: str) -> None:
    scorer = load_scorer(options(f"{name}:fails"))
    assert scorer.logits(scorer.encode([], [])).shape == (0,)


def test_its_own_exceptions_come_through(name: str) -> None:
    scorer = load_scorer(options(f"{name}:fails"))
    with pytest.raises(LookupError, match="no such model"):
        scorer.logits(scorer.encode(["a"], ["b"]))


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ("one_too_few", "returned 2 scores for 3 pairs"),
        ("square", r"returned an array of shape \(3, 3\) for 3 pairs"),
        ("words", "no list of numbers"),
    ],
)
def test_something_else_than_one_number_per_pair(name: str, attribute: str, words: str) -> None:
    scorer = load_scorer(options(f"{name}:{attribute}"))
    with pytest.raises(ModelError, match=words):
        scorer.logits(scorer.encode(["a"] * 3, ["b"] * 3))


def test_scores_that_are_not_finite_name_their_pairs(name: str) -> None:
    scorer = load_scorer(options(f"{name}:some_bad"))
    with pytest.raises(NonFiniteScoreError, match=r"3 of 5 pairs \(positions 1, 3, 4\)") as caught:
        scorer.logits(scorer.encode(["q"] * 5, ["fine", "bad", "good", "none", "huge"]))
    assert caught.value.pairs == (1, 3, 4)


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ("Missing", "has no 'Missing'"),
        ("WithoutScore", r"neither a class with a method score\(queries, texts\) nor a function"),
        ("not_callable", "neither a class"),
        ("OddFingerprint", "attribute fingerprint .* is a int; it must be a string"),
    ],
)
def test_refused_by_the_check(name: str, attribute: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        check_model(options(f"{name}:{attribute}"))


def test_a_class_that_wants_arguments(name: str) -> None:
    check_model(options(f"{name}:NeedsArguments"))
    with pytest.raises(ModelError, match=r"cannot be constructed without arguments: TypeError.*path"):
        load_scorer(options(f"{name}:NeedsArguments"))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("python:no.such.module:Class", "There is no module 'no.such.module'.*PYTHONPATH"),
        ("python:nosuchmodule:Class", "There is no module 'nosuchmodule'"),
        ("python:module", "write python:package.module:Class"),
        ("python:", "write python:package.module:Class"),
        ("python:a.b.Class", "write python:package.module:Class"),
        ("python:../x:Class", "write python:package.module:Class"),
    ],
)
def test_names_of_nothing(model: str, words: str) -> None:
    for ask in (check_model, load_encoder):
        with pytest.raises(ModelError, match=words):
            ask(options(model))


def test_a_module_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_scorer.py").write_text("import nothing_of_that_name\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelError, match=r"cannot be imported: ModuleNotFoundError.*nothing_of_that_name"):
        check_model(options("python:broken_scorer:Class"))


@pytest.mark.parametrize(
    "setting",
    [
        {"max_length": 9},
        {"max_query_tokens": 9},
        {"revision": "main"},
        {"instruction": "x"},
        {"max_document_tokens": 9},
    ],
    ids=str,
)
def test_settings_that_cannot_reach_it(name: str, setting: dict[str, object]) -> None:
    flag = "--" + next(iter(setting)).replace("_", "-")
    with pytest.raises(UsageError, match=f"{flag} was given with --model"):
        check_model(ScorerOptions(model=f"{name}:Overlap", **setting))  # type: ignore[arg-type]


def test_a_card(name: str) -> None:
    card = check_model(options(f"{name}:Overlap"))
    assert (card.model, card.kind, card.folder, card.revision) == (f"{name}:Overlap", "python", None, None)
    assert (card.architecture, card.activation, card.parameters) == ("Overlap", "identity", 0)
    assert load_scorer(options(f"{name}:Overlap")).fingerprint == card.fingerprint


CHANGES: dict[str, Callable[[str], str]] = {
    "its own fingerprint": lambda source: source.replace("weights-1", "weights-2"),
    "a line of its source": lambda source: source + "\n# changed\n",
}


@pytest.mark.parametrize("change", CHANGES)
def test_fingerprints_differ(name: str, tmp_path: Path, change: str) -> None:
    before = check_model(options(f"{name}:Overlap")).fingerprint
    module = name.removeprefix("python:")
    (tmp_path / f"{module}.py").write_text(CHANGES[change](SOURCE))
    del sys.modules[module]
    assert check_model(options(f"{name}:Overlap")).fingerprint != before
    assert check_model(options(f"{name}:lengths")).fingerprint != check_model(options(f"{name}:Overlap")).fingerprint


def test_encoding_imports_neither_the_module_nor_torch(name: str, tmp_path: Path) -> None:
    module = name.removeprefix("python:")
    code = (
        "import sys; from rankmill.scoring.load import load_encoder, ScorerOptions; "
        f"load_encoder(ScorerOptions(model='{name}:Overlap')).encode(['a'], ['b']); "
        f"print([name for name in ('torch', 'transformers', 'ray', '{module}') if name in sys.modules])"
    )
    path = ":".join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": path}
    )
    assert done.stdout.strip() == "[]"
