"""What every model family offers, before anything heavy is loaded."""

from collections.abc import Sequence
from typing import Protocol

from rankmill.scoring.card import ModelCard
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.scorer import Scorer
from rankmill.types import EncodedPairs


class Encoder(Protocol):
    """Turns texts into what a scorer's forward pass takes; on the CPU, without torch. Survives pickling."""

    def encode(self, queries: Sequence[str], texts: Sequence[str]) -> EncodedPairs:
        """Encode pairs `(queries[i], texts[i])`, in input order; each distinct text is tokenised once per call."""


class Model(Protocol):
    """A model that passed every check that its files allow. Reading it takes neither torch nor its weights."""

    def card(self, precision: str) -> ModelCard:
        """Describe it as it would be computed in `precision`; reads the weight files once, to hash them."""

    def encoder(self) -> Encoder:
        """Load what tokenises."""

    def load(self, options: ScorerOptions) -> Scorer:
        """Load the weights.

        Raises:
            ModelError: the weights do not fit the architecture.
            UsageError: the device is not there.
        """
