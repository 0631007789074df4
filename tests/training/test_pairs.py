"""Training sees the tokens that the scorer will see: the same assembly, at every length that a step draws."""

from pathlib import Path

import numpy as np
import pytest

from rankmill.scoring.load import load_encoder
from rankmill.scoring.options import ScorerOptions
from rankmill.training.lists import Candidate, TrainingList
from rankmill.training.model import load_body, served, write_model
from rankmill.training.pairs import ListPairs
from tests.tiny_models import CORPUS, MAX_LENGTH, save_tiny_model

LONG = " ".join(CORPUS)
LISTS = [
    TrainingList("short", "sort a list", (Candidate("a", CORPUS[0]), Candidate("b", ""), Candidate("c", LONG))),
    TrainingList("long", LONG, (Candidate("a", "water"), Candidate("b", LONG))),
    TrainingList("odd", "[SEP] </s> münchen 狐狸", (Candidate("a", "[CLS] <s> fox"), Candidate("b", CORPUS[4]))),
]


@pytest.fixture(params=["bert", "roberta", "modernbert"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_step_has_the_tokens_that_the_scorer_makes_of_the_same_texts(tmp_path: Path, family: str) -> None:
    body = save_tiny_model(tmp_path / "body", family)
    model, tokenizer = load_body(str(body), dropout=0.0, seed=0)
    pairs = ListPairs(served(model, tokenizer, MAX_LENGTH), LISTS)
    write_model(model, tokenizer, tmp_path / "model", int8=False)
    for length in (8, 9, 16, 33, 64, MAX_LENGTH):
        for chosen in ([0, 1, 2], [2], [1, 0]):
            encoder = load_encoder(ScorerOptions(model=str(tmp_path / "model"), max_length=length))
            lists = [LISTS[i] for i in chosen]
            found = pairs.of(chosen, length)
            wanted = encoder.encode(
                [item.query for item in lists for _ in item.candidates],
                [candidate.text for item in lists for candidate in item.candidates],
            )
            for name in ("token_ids", "offsets", "document_starts", "truncated"):
                assert np.array_equal(getattr(found, name), getattr(wanted, name)), (length, chosen, name)
            assert int(found.lengths.max()) <= length
