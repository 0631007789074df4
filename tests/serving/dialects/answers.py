"""Results as a gateway makes them, for documents whose logits are known."""

from collections.abc import Sequence

import numpy as np

from rankmill.scoring.activation import activate
from rankmill.serving.request import RerankRequest, RerankResult

NAMES = {"model": "sigmoid", "sigmoid": "sigmoid", "raw": "identity"}


def result_of(request: RerankRequest, logits: Sequence[float]) -> RerankResult:
    """What became of a request of the default model `m`; the first document was cut."""
    raw = np.array(logits, dtype=np.float32)
    scores = activate(raw, NAMES[request.activation])
    order = np.argsort(-raw, kind="stable")
    if request.min_score is not None:
        order = order[scores[order] >= request.min_score]
    return RerankResult(
        request_id="rr-1",
        model=request.model or "m",
        revision="abc",
        created=1,
        logits=raw,
        scores=scores,
        truncated=np.arange(len(raw)) == 0,
        order=order[: request.top_n],
        tokens=9,
        seconds=0.25,
    )
