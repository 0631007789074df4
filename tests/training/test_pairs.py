"""Pair assembly and micro-batches."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from rankmill.training.packing import pack_by_length
from rankmill.training.pairs import PairEncoder


@pytest.fixture(scope="module")
def encoder(tiny_body: Path) -> PairEncoder:
    return PairEncoder(AutoTokenizer.from_pretrained(tiny_body))


def test_a_pair_is_what_the_tokenizer_itself_makes(tiny_body: Path, encoder: PairEncoder) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_body)
    query, document = encoder.tokens(["red apple", "the cow sees a red moon"])
    ids, start = encoder.pair(query, document, 64)
    assert ids[1 : 1 + len(query)] == tokenizer("red apple", add_special_tokens=False)["input_ids"]
    assert (ids[0], ids[start - 1], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.sep_token_id)
    assert ids[start:-1] == document


@pytest.mark.parametrize(
    ("query", "document", "limit"), [(3, 50, 20), (50, 3, 20), (50, 50, 21), (2, 2, 20), (3, 0, 16)]
)
def test_the_document_gives_way_first_and_the_query_keeps_half(
    encoder: PairEncoder, query: int, document: int, limit: int
) -> None:
    ids, start = encoder.pair([7] * query, [9] * document, limit)
    assert len(ids) <= limit
    assert len(ids) == min(limit, query + document + 3) or query > (limit - 3) // 2
    assert start - 2 == (query if query + document + 3 <= limit else min(query, (limit - 3) // 2))


def test_padding_is_masked_and_token_types_mark_the_document(encoder: PairEncoder) -> None:
    batch = encoder.pad([encoder.pair([7], [9, 9], 16), encoder.pair([7, 7], [9, 9, 9, 9], 16)], torch.device("cpu"))
    assert batch.input_ids.shape == (2, 9)
    assert batch.attention_mask.sum(1).tolist() == [6, 9]
    assert batch.token_type_ids.sum(1).tolist() == [3, 5]


def test_micro_batches_hold_everything_once_within_the_budget() -> None:
    lengths = [5, 90, 17, 17, 300, 1, 64, 2]
    batches = pack_by_length(lengths, 128)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(max(lengths[i] for i in batch) * len(batch) <= 128 or len(batch) == 1 for batch in batches)
    assert batches[0] == [4]
    assert pack_by_length([], 128) == []
