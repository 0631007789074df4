"""The seam that batch and online share."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rankmill.types import EncodedPairs


class Scorer(Protocol):
    """Scores query-document pairs; higher is more relevant."""

    @property
    def fingerprint(self) -> str:
        """Model, revision, weights hash, template, truncation, precision: equal fingerprints give equal logits."""

    @property
    def activation(self) -> str:
        """What turns this model's logits into scores: `identity` or `sigmoid`, as the model's own files say."""

    @property
    def listwise(self) -> bool:
        """Whether the score of a document depends on the others of its query.

        Then pairs come to `logits` with their `lists`, each of them whole.
        """

    def encode(self, queries: Sequence[str], texts: Sequence[str]) -> EncodedPairs:
        """Tokenise pairs `(queries[i], texts[i])` on the CPU, in input order; each distinct text is tokenised once."""

    def logits(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        """Run the forward pass.

        Returns:
            Shape (n,), input order. Empty in, empty out.

        Raises:
            NonFiniteScoreError: naming the pairs whose logit is NaN or infinite.
        """
