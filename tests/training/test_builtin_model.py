"""The model that ships: its logits are pinned, and it puts what is relevant first."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, PreTrainedTokenizerBase

import rankmill
from rankmill.scoring.int8 import is_int8, load_int8

FOLDER = Path(rankmill.__file__).parent / "scoring" / "builtin"
MOST_BYTES = 26_000_000

PINNED = [
    ("how do I reverse a list in place", "list.reverse Reverse the elements of the list in place.", 3.9093),
    (
        "capital of Australia",
        "Canberra is the capital city of Australia. Founded following the federation of the colonies of Australia.",
        2.4797,
    ),
    ("capital of Australia", "Kangaroos are marsupials that live in Australia and Papua New Guinea.", -0.6397),
    ("vitamin D lowers the risk of bone fractures", "Vitamin C content of citrus fruit.", -0.1393),
    ("", "An empty query.", -2.8842),
    ("an empty document", "", -2.6111),
    ("Größe — naïve café", "Die Größe eines Cafés; 東京 and 42.", 1.8817),
]

ORDERED = [
    (
        "how do I reverse a list in place",
        "list.reverse Reverse the elements of the list in place.",
        "list.count Return the number of times x appears in the list.",
    ),
    (
        "capital of Australia",
        "Canberra is the capital city of Australia. Founded following the federation of the colonies of Australia.",
        "Kangaroos are marsupials that live in Australia and Papua New Guinea.",
    ),
    (
        "vitamin D lowers the risk of bone fractures",
        "Vitamin D supplementation and fracture risk. In a meta-analysis of trials, vitamin D reduced fractures.",
        "Vitamin C content of citrus fruit. We measured ascorbic acid in oranges, lemons and limes from four regions.",
    ),
    (
        "who wrote the origin of species",
        "Charles Darwin was an English naturalist, best known for On the Origin of Species, published in 1859.",
        "An endangered species is a species that is very likely to become extinct in the near future.",
    ),
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(FOLDER)
    return loaded


@pytest.fixture(scope="module")
def model() -> BertForSequenceClassification:
    """Plain transformers: nothing of our own but the weights' format."""
    model = BertForSequenceClassification(BertConfig.from_pretrained(FOLDER))
    model.load_state_dict(load_int8(FOLDER / "model.safetensors"))
    model.train(mode=False)
    return model


def logits(
    model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerBase, queries: list[str], texts: list[str]
) -> list[float]:
    batch = tokenizer(queries, texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        found: list[float] = model(**batch).logits[:, 0].tolist()
    return found


def test_the_logits_are_the_pinned_ones(
    model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerBase
) -> None:
    found = logits(model, tokenizer, [q for q, _, _ in PINNED], [t for _, t, _ in PINNED])
    assert found == pytest.approx([logit for _, _, logit in PINNED], abs=1e-3)


@pytest.mark.parametrize(("query", "relevant", "irrelevant"), ORDERED)
def test_what_answers_the_query_comes_before_what_shares_a_word(
    model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerBase, query: str, relevant: str, irrelevant: str
) -> None:
    higher, lower = logits(model, tokenizer, [query, query], [relevant, irrelevant])
    assert higher > lower + 0.5


def test_it_is_small_and_complete() -> None:
    assert is_int8(FOLDER / "model.safetensors")
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= MOST_BYTES
    names = {path.name for path in FOLDER.iterdir()}
    assert names >= {"README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def test_the_tokenizer_stops_where_the_positions_do(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.model_max_length == 512
    assert BertConfig.from_pretrained(FOLDER).max_position_embeddings == 512
