"""What happens to a request between its dialect's two ends: tokens, logits, scores, ranking."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankmill.scoring.activation import activate
from rankmill.scoring.lists import in_lists
from rankmill.serving import limits
from rankmill.serving.backend import ModelInfo, Scored
from rankmill.serving.cuts import too_long
from rankmill.serving.encoders import Encoders, Variant
from rankmill.serving.request import RerankRequest, RerankResult
from rankmill.serving.request_error import Kind, RequestError
from rankmill.serving.slices import token_counts
from rankmill.settings.gateway import GatewaySettings
from rankmill.types import EncodedPairs

_ACTIVATIONS = {"raw": "identity", "sigmoid": "sigmoid"}
_NAMED = 10
"""Models in a message."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request's pairs as tokens; equal pairs once, but for a model that scores lists."""

    pairs: EncodedPairs
    """The distinct ones."""
    rows: NDArray[np.int64]
    """Shape (n,): which of them each document's pair is."""
    tokens: int
    """Of all pairs, special tokens included; an estimate for a model that gets texts."""


def find_model(models: Mapping[str, ModelInfo], name: str | None) -> ModelInfo:
    """The model of a name or an alias; None is the default one.

    Raises:
        RequestError: UNKNOWN_MODEL, listing those that there are.
    """
    for model in models.values():
        if model.default if name is None else name == model.name or name in model.aliases:
            return model
    known = [name for model in models.values() for name in (model.name, *model.aliases)]
    more = f" and {len(known) - _NAMED} more" if len(known) > _NAMED else ""
    raise RequestError(
        Kind.UNKNOWN_MODEL, f"There is no such model here; there are {', '.join(known[:_NAMED])}{more}.", "model"
    )


def prepare(request: RerankRequest, model: ModelInfo, encoders: Encoders, settings: GatewaySettings) -> Prepared:
    """Tokenise a request's pairs; takes milliseconds, on a thread of its own.

    Raises:
        RequestError: INVALID (limits, or the model cannot do what is asked) or TOO_LONG.
    """
    limits.check_texts(request, settings)
    encoder = encoders.find(model, request)
    asked = list(zip(*request.pairs, strict=True))
    rows = np.arange(len(asked))
    if not model.card.listwise:  # else a pair that is there twice is part of the list
        asked, rows = _distinct(asked)
    queries, documents = [query for query, _ in asked], [document for _, document in asked]
    pairs = encoder.encode(queries, documents)
    if model.card.listwise:
        pairs = in_lists(pairs, queries)
    tokens = int(token_counts(pairs, model.card.ids_per_token)[rows].sum())
    limits.check_tokens(tokens, settings)
    if not request.truncate and pairs.truncated.any():
        cut = np.flatnonzero(too_long(pairs, queries, documents, encoder, Variant.of(request, model))[rows])
        _refuse(cut, request, model)
    return Prepared(pairs, rows, tokens)


def _distinct(pairs: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], NDArray[np.int64]]:
    """Equal pairs once, and which of them each one is."""
    found: dict[tuple[str, str], int] = {}
    rows = np.asarray([found.setdefault(pair, len(found)) for pair in pairs], dtype=np.int64)
    return list(found), rows


def _refuse(cut: NDArray[np.int64], request: RerankRequest, model: ModelInfo) -> None:
    """Refuse a request with pairs that are too long; `cut` are their documents' positions."""
    if len(cut):
        raise RequestError(
            Kind.TOO_LONG,
            f"{len(cut):,} of {len(request.documents):,} pairs have more tokens than are read of a pair, the first of "
            f"them with document {cut[0]}: the model {model.name!r} reads {model.card.max_length:,} tokens, "
            f"{model.card.max_query_tokens:,} of them of the query. Send shorter texts, or let them be cut.",
        )


def finish(
    request: RerankRequest, model: ModelInfo, prepared: Prepared, scored: Scored, request_id: str, seconds: float
) -> RerankResult:
    """Turn logits into what the client asked for.

    Args:
        request: what it asked for.
        model: that scored.
        prepared: the request's pairs.
        scored: what the backend made of them.
        request_id: of the request.
        seconds: since it arrived.

    Raises:
        RequestError: INTERNAL, for logits that are not one finite number a pair.
    """
    if scored.logits.shape != (len(prepared.pairs),) or not np.isfinite(scored.logits).all():
        raise RequestError(Kind.INTERNAL, f"The model {model.name!r} gave no usable scores.")
    logits = scored.logits[prepared.rows].astype(np.float32, copy=False)
    scores = activate(logits, _ACTIVATIONS.get(request.activation, model.activation))
    order = np.argsort(-logits, kind="stable")
    if request.min_score is not None:
        # in float64, as scores are sent: a bound may be larger than any float32
        order = order[scores[order].astype(np.float64) >= request.min_score]
    return RerankResult(
        request_id=request_id,
        model=request.model or model.name,
        revision=model.revision,
        created=int(time.time()),
        logits=logits,
        scores=scores,
        truncated=prepared.pairs.truncated[prepared.rows],
        order=order[: request.top_n],
        tokens=prepared.tokens,
        seconds=seconds,
        best=None if scored.best is None else scored.best[prepared.rows],
    )
