"""Whether a loaded model does what it should: scores that are known, an order that is obvious, batches that agree."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rankmill.scoring.card import ModelCard
from rankmill.scoring.chunks import score
from rankmill.scoring.files import sha256
from rankmill.scoring.scorer import Scorer

Outcome = Literal["passed", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Check:
    """One part of the self-test."""

    name: str
    outcome: Outcome
    detail: str
    """One sentence with its numbers."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """Logits that a model is known to give, in full precision."""

    models: tuple[str, ...]
    """Hub ids, or the sha256 of a weight file."""
    source: str
    tolerance: float
    pairs: tuple[tuple[str, str, float], ...]
    """Query, text, logit."""


_CANBERRA = "Canberra is the capital city of Australia. Founded following the federation of the colonies of Australia."
_BERLIN = "How many people live in Berlin?"
_POPULATION = "Berlin had a population of 3,520,031 registered inhabitants in an area of 891.82 square kilometers."
_MUSEUMS = "Berlin is well known for its museums."
_PANDA = (
    "The giant panda (Ailuropoda melanoleuca), sometimes called a panda bear or simply panda, is a bear species "
    "endemic to China."
)

PINNED = (
    Pinned(
        ("6f25719a383cdcd825bdc62ac295bc18090d3598da86cae0e92490796182c0b7",),
        "measured when the weights were made",
        1e-3,
        (
            ("how do I reverse a list in place", "list.reverse Reverse the elements of the list in place.", 3.9093),
            ("capital of Australia", _CANBERRA, 2.4797),
            ("capital of Australia", "Kangaroos are marsupials that live in Australia and Papua New Guinea.", -0.6397),
            ("vitamin D lowers the risk of bone fractures", "Vitamin C content of citrus fruit.", -0.1393),
            ("", "An empty query.", -2.8842),
            ("an empty document", "", -2.6111),
        ),
    ),
    Pinned(
        ("cross-encoder/ms-marco-MiniLM-L6-v2", "cross-encoder/ms-marco-MiniLM-L-6-v2"),
        "published in the model's card",
        1e-3,
        ((_BERLIN, _POPULATION, 8.607138), (_BERLIN, _MUSEUMS, -4.320078)),
    ),
    Pinned(
        ("cross-encoder/ms-marco-MiniLM-L2-v2", "cross-encoder/ms-marco-MiniLM-L-2-v2"),
        "published in the model's card",
        1e-3,
        ((_BERLIN, _POPULATION, 8.510401), (_BERLIN, _MUSEUMS, -4.860082)),
    ),
    Pinned(
        ("BAAI/bge-reranker-v2-m3",),
        "published in the model's card, from a run in float16",
        5e-2,
        (("query", "passage", -5.65234375), ("what is panda?", "hi", -8.1875), ("what is panda?", _PANDA, 5.26171875)),
    ),
)

ORDERED = (
    (
        "what is the capital of France",
        "Paris is the capital and largest city of France.",
        "To change a bicycle tyre, first take the wheel off the frame.",
    ),
    (
        "how do I boil an egg",
        "Put the egg into boiling water for eight minutes, then cool it under cold water.",
        "The treaty was signed by twelve member states after three years of negotiations.",
    ),
    (
        _BERLIN,
        _POPULATION,
        "A semicolon joins two independent clauses without a conjunction.",
    ),
)
"""Query, a text that answers it, a text that has nothing to do with it."""

# Rounding of the body's precision, as far as other rows of a batch may change it; per unit of the logit from 1 on
_TOLERANCES = {"float32": 1e-4, "float16": 2e-2, "bfloat16": 5e-2}
_OTHER_TOLERANCE = 5e-2


def self_test(scorer: Scorer, card: ModelCard) -> list[Check]:
    """Run a few dozen short pairs through a model.

    Args:
        scorer: as loaded.
        card: what it is.

    Returns:
        Known scores, order, batches. Only the second can end with a warning: a model with random weights, or one that
        was trained for something else, may be sound and still put the wrong text first.
    """
    return [_known_scores(scorer, card), _order(scorer), _batches(scorer, card)]


def _known_scores(scorer: Scorer, card: ModelCard) -> Check:
    name = "known scores"
    known = _pinned(card)
    if known is None:
        return Check(name, "skipped", "no scores of this model are known.")
    queries, texts, expected = zip(*known.pairs, strict=True)
    pairs = scorer.encode(queries, texts)
    if pairs.truncated.any():
        return Check(name, "skipped", "the limits asked for cut the pairs whose scores are known.")
    found = score(scorer, pairs).logits
    wanted = np.asarray(expected)
    allowed = known.tolerance + _tolerance(card.precision) * np.maximum(1, np.abs(wanted))
    off = np.abs(found - wanted)
    worst = int(np.argmax(off - allowed))
    numbers = f"{len(expected)} pairs, {known.source}; at worst {found[worst]:.4f} where {wanted[worst]:.4f} belongs"
    return Check(name, "passed" if off[worst] <= allowed[worst] else "failed", f"{numbers}.")


def _order(scorer: Scorer) -> Check:
    logits = _logits(scorer, [(query, text) for query, *both in ORDERED for text in both])
    higher, lower = logits[0::2], logits[1::2]
    right = int(np.sum(higher > lower))
    detail = f"{right} of {len(ORDERED)} answers score above a text that has nothing to do with the question"
    if right == len(ORDERED):
        return Check("order", "passed", f"{detail}.")
    return Check("order", "warning", f"{detail}: is it a reranker, and was it trained?")


def _batches(scorer: Scorer, card: ModelCard) -> Check:
    lists = [[(query, text) for text in [*both, "", " ".join(both * 8)]] for query, *both in ORDERED]
    pairs = [pair for one in lists for pair in one]
    together = _logits(scorer, pairs)
    alone = np.concatenate([_logits(scorer, one) for one in (lists if scorer.listwise else [[pair] for pair in pairs])])
    off = np.abs(together - alone)
    allowed = _tolerance(card.precision) * np.maximum(1, np.abs(alone))
    worst = int(np.argmax(off - allowed))
    what = f"{len(lists)} lists" if scorer.listwise else f"{len(pairs)} pairs"
    detail = f"{what}, alone and together, differ by {off.max():.1e} at most"
    if off[worst] <= allowed[worst]:
        return Check("batches", "passed", f"{detail}.")
    return Check("batches", "failed", f"{detail}; {card.precision} allows {allowed[worst]:.1e} there.")


def _logits(scorer: Scorer, pairs: list[tuple[str, str]]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    queries, texts = zip(*pairs, strict=True)
    return score(scorer, scorer.encode(queries, texts)).logits


def _pinned(card: ModelCard) -> Pinned | None:
    names = {card.model}
    if card.folder is not None:
        names |= {sha256(path) for path in card.folder.glob("model.safetensors")}
    return next((pinned for pinned in PINNED if names & set(pinned.models)), None)


def _tolerance(precision: str) -> float:
    return _TOLERANCES.get(precision, _OTHER_TOLERANCE)
