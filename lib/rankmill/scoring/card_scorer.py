"""What all scorers here have in common."""

from collections.abc import Callable, Sequence

from rankmill.scoring.card import ModelCard
from rankmill.scoring.lists import in_lists
from rankmill.scoring.model import Encoder
from rankmill.types import EncodedPairs


class CardScorer:
    """A scorer that is what its card says and encodes as its encoder does; each kind has a forward pass of its own.

    Args:
        card: what the model is.
        encoder: what the forward pass gets is made by it.
    """

    def __init__(self, card: ModelCard, encoder: Encoder) -> None:
        self.card = card
        self._encoder = encoder
        self.after_pass: Callable[[], None] = _nothing
        """Called after each forward pass; whoever watches over this process learns from it that the model works."""

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints give equal logits, up to the rounding of the device."""
        return self.card.fingerprint

    @property
    def activation(self) -> str:
        """`identity` or `sigmoid`."""
        return self.card.activation

    @property
    def listwise(self) -> bool:
        """Whether the score of a document depends on the others of its query."""
        return self.card.listwise

    def encode(self, queries: Sequence[str], texts: Sequence[str]) -> EncodedPairs:
        """Encode pairs `(queries[i], texts[i])`; see the encoder. Of a scorer of lists, with their `lists`."""
        pairs = self._encoder.encode(queries, texts)
        return in_lists(pairs, queries) if self.listwise else pairs


def _nothing() -> None:
    """Nobody watches."""
