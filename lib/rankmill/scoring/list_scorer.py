"""The scorer of models that read a query's documents together, as texts."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankmill.errors import NonFiniteScoreError
from rankmill.scoring.card import ModelCard
from rankmill.scoring.card_scorer import CardScorer
from rankmill.scoring.lists import each_list
from rankmill.scoring.model import Encoder
from rankmill.scoring.text_encoder import checked_scores, decode, not_finite
from rankmill.types import EncodedPairs

ScoreList = Callable[[str, Sequence[str]], Any]
"""A query and all its documents, to one number per document, in order."""


class ListScorer(CardScorer):
    """Scores one list after the other.

    Args:
        card: what the model is; listwise.
        encoder: what makes bytes of texts.
        score_list: called once for each list.
    """

    def __init__(self, card: ModelCard, encoder: Encoder, score_list: ScoreList) -> None:
        super().__init__(card, encoder)
        self._score_list = score_list

    def logits(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        """Score lists; what `score_list` raises comes through as it is.

        Returns:
            Float32, shape (n,), input order. Empty in, empty out.

        Raises:
            ModelError: something else came back than one number per document.
            NonFiniteScoreError: naming the pairs whose score is NaN or infinite.
        """
        queries, texts = decode(pairs)
        logits, bad = np.zeros(len(pairs), dtype=np.float32), list[int]()
        for rows in each_list(pairs):
            found = self._score_list(queries[rows.start], texts[rows])
            try:
                logits[rows] = checked_scores(self.card.model, found, rows.stop - rows.start)
            except NonFiniteScoreError as error:
                bad += [rows.start + i for i in error.pairs]
            self.after_pass()
        if bad:
            raise not_finite(self.card.model, bad, len(pairs))
        return logits
