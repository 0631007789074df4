"""The suite is able to fail: each known way of getting other scores, done on purpose, is caught by a test of it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rankmill.scoring.activation import activate
from rankmill.scoring.batches import packed, padded
from rankmill.scoring.engines import torch_load, torch_packed, torch_padded
from rankmill.scoring.tokens import PairEncoder
from rankmill.types import EncodedPairs
from tests.scoring import test_activation, test_logits, test_packed, test_tokens, test_torch_load
from tests.tiny_models import MAX_LENGTH

Inputs = dict[str, NDArray[np.int64]]


def caught(check: Callable[..., None], *arguments: Any) -> None:
    """A test of the suite fails now; by what it compares, not by breaking down."""
    with pytest.raises(AssertionError):
        check(*arguments)


def mutate_inputs(patch: pytest.MonkeyPatch, change: Callable[[Inputs], object]) -> None:
    """Change what every forward pass is given."""

    def mutated(pairs: EncodedPairs, rows: NDArray[np.int64], *, pad_id: int, segments: bool) -> Inputs:
        inputs = padded(pairs, rows, pad_id=pad_id, segments=segments)
        change(inputs)
        return inputs

    patch.setattr(torch_padded, "padded", mutated)


@pytest.mark.parametrize("family", ["bert", "electra"])
def test_token_types_dropped(tiny: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    mutate_inputs(monkeypatch, lambda inputs: inputs.pop("token_type_ids"))
    caught(test_logits.test_equal_to_a_bare_loop, tiny, family)


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "deberta-v2"])
def test_padding_read_as_text(tiny: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    mutate_inputs(monkeypatch, lambda inputs: inputs["attention_mask"].fill(1))
    caught(test_logits.test_equal_to_a_bare_loop, tiny, family)
    caught(test_logits.test_company_order_and_budget_do_not_matter, tiny, family)


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta"])
def test_positions_without_the_offset(tiny: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    """RoBERTa's first position is `pad_token_id + 1`, not 0."""

    def number(inputs: Inputs) -> None:
        inputs["position_ids"] = np.zeros_like(inputs["input_ids"]) + np.arange(inputs["input_ids"].shape[1])

    mutate_inputs(monkeypatch, number)
    caught(test_logits.test_equal_to_a_bare_loop, tiny, family)


@pytest.mark.parametrize(("family", "first"), [("bert", 0), ("roberta", 2), ("xlm-roberta", 2)])
def test_positions_not_restarted(
    tiny: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch, family: str, first: int
) -> None:
    """The positions of a pair go on where those of the pair before it in the batch end."""

    def number(inputs: Inputs) -> None:
        lengths = inputs["attention_mask"].sum(axis=1)
        starts = np.cumsum(lengths) - lengths
        inputs["position_ids"] = first + (starts[:, None] + np.arange(inputs["input_ids"].shape[1])) % MAX_LENGTH

    mutate_inputs(monkeypatch, number)
    caught(test_logits.test_equal_to_a_bare_loop, tiny, family)
    caught(test_logits.test_company_order_and_budget_do_not_matter, tiny, family)


@pytest.mark.parametrize(("family", "kind"), [("bert", "positions"), ("xlm-roberta", "positions"), ("bert", "types")])
def test_in_a_packed_batch(tiny: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch, family: str, kind: str) -> None:
    """Without padding, pairs lie one after the other: their positions go on, or their token types are lost."""

    def mutated(pairs: EncodedPairs, rows: NDArray[np.int64], *, first_position: int, segments: bool) -> Inputs:
        inputs = packed(pairs, rows, first_position=first_position, segments=segments)
        if kind == "types":
            inputs.pop("token_type_ids")
        else:
            inputs["position_ids"] = first_position + np.arange(len(inputs["input_ids"])) % MAX_LENGTH
        return inputs

    monkeypatch.setattr(torch_packed, "packed", mutated)
    caught(test_packed.test_equal_to_a_bare_loop, tiny, family)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_truncating_the_longer_of_the_two(
    tiny: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """What transformers calls `longest_first`: a long document costs the query its end."""
    monkeypatch.setattr(PairEncoder, "encode", longest_first)
    caught(test_tokens.test_truncation, tiny, family, ((12, 50), {"max_query_tokens": 12}, (12, 1), True))
    test_tokens.test_truncation(tiny, family, ((3, 50), {}, (3, 10), True))  # where the two rules agree


def longest_first(encoder: PairEncoder, queries: Sequence[str], texts: Sequence[str]) -> EncodedPairs:
    prefix, middle, suffix = (list(part) for part in encoder.template.parts)
    room = encoder.limits.max_length - encoder.template.special_tokens
    ids: list[list[int]] = []
    starts, truncated = [], []
    for query, text in zip(queries, texts, strict=True):
        parts = [encoder._tokenizer.tokenizer.encode(part, add_special_tokens=False).ids for part in (query, text)]
        truncated.append(len(parts[0]) + len(parts[1]) > room)
        while len(parts[0]) + len(parts[1]) > room:
            max(parts, key=len).pop()
        ids.append(prefix + parts[0] + middle + parts[1] + suffix)
        starts.append(len(prefix) + len(parts[0]) + len(middle))
    offsets = np.concatenate([[0], np.cumsum([len(pair) for pair in ids])])
    tokens = np.asarray([token for pair in ids for token in pair], dtype=np.int32)
    return EncodedPairs(tokens, offsets, np.asarray(starts, dtype=np.int32), np.asarray(truncated))


def in_bfloat16(logits: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    if name == "identity":
        return logits
    scores: NDArray[np.float32] = torch.from_numpy(logits).bfloat16().sigmoid().float().numpy()
    return scores


def twice(logits: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    return activate(activate(logits, name), name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("mutant", [in_bfloat16, twice])
def test_another_activation(
    tiny: Mapping[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    mutant: Callable[[NDArray[np.float32], str], NDArray[np.float32]],
) -> None:
    monkeypatch.setattr(test_activation, "activate", mutant)
    monkeypatch.setattr(test_logits, "activate", mutant)
    caught(test_activation.test_sigmoid_is_exact_and_does_not_overflow)
    caught(test_logits.test_equal_to_sentence_transformers, tiny, "bert")


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_a_head_in_bfloat16(tiny: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    monkeypatch.setattr(torch_load, "_widen_around_body", lambda network, precision: network.to(precision))
    caught(test_logits.test_bfloat16_body_keeps_a_float32_head, tiny, family)
    caught(test_torch_load.test_pooler_and_head_stay_in_float32, tiny, family)


def test_answers_in_the_order_of_the_batches(tiny: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    collect = torch_padded.TorchPadded.collect
    monkeypatch.setattr(torch_padded.TorchPadded, "collect", lambda self, outputs: np.sort(collect(self, outputs)))
    caught(test_logits.test_equal_to_a_bare_loop, tiny, "bert")
