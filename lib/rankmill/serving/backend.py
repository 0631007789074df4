"""What the gateway asks for scores: one seam, with the scorers behind it in this process or in Ray Serve's replicas.

`LocalBackend` (`serving.local_backend`) and `ServeBackend` (`serving.serve_backend`) are its implementations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rankmill.scoring.card import ModelCard
from rankmill.scoring.options import ScorerOptions
from rankmill.types import EncodedPairs


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A configured model, as a gateway knows it; every replica that scores it was checked against `card`."""

    name: str
    """What clients call it, and metrics and logs too."""
    aliases: tuple[str, ...] = ()
    """Other names for it."""
    card: ModelCard
    """What it is; its folder is that of the machine that read it."""
    options: ScorerOptions
    """Concrete and pinned to a revision: what `load_encoder` of a gateway and `load_scorer` of a replica take."""
    default: bool = False
    """Whether it serves requests that name no model; true of exactly one."""

    @property
    def activation(self) -> str:
        """`identity` or `sigmoid`: what its own files say."""
        return self.card.activation

    @property
    def revision(self) -> str:
        """Of its content: the commit of a hub model, else the first 12 digits of its fingerprint."""
        return self.card.revision or self.card.fingerprint[:12]


@dataclass(frozen=True, slots=True)
class Work:
    """Forward passes; of those that requests share, each of them has its part by tokens: they add up to the whole."""

    calls: float = 0.0
    """Of the scorer."""
    pairs: int = 0
    tokens: int = 0
    """Of these pairs, without padding."""
    padding: float = 0.0
    """Tokens of padding that were computed beside them."""
    seconds: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        """Both together."""
        return Work(
            self.calls + other.calls,
            self.pairs + other.pairs,
            self.tokens + other.tokens,
            self.padding + other.padding,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True, slots=True)
class Scored:
    """What became of `n` pairs."""

    logits: NDArray[np.float32]
    """Shape (n,), input order, finite."""
    best: NDArray[np.int32] | None = None
    """Shape (n, 2): characters that the best chunk covers, -1 where there is one chunk only; None without chunks."""
    cached: int = 0
    """Pairs whose logits were known and not computed again; of pairs in chunks, the chunks."""
    work: Work = Work()
    """What it took to compute the others."""
    lost: int = 0
    """Pairs that replicas had when they died, before another one scored them."""


class OtherVersionError(Exception):
    """Whoever scores the model has other files or options than its pairs were tokenised for: a new version takes over.

    Args:
        info: what scores there; pairs that were tokenised for it will do.
    """

    def __init__(self, info: ModelInfo) -> None:
        super().__init__(info)
        self.info = info


class Backend(Protocol):
    """Scores pairs that are tokenised already."""

    def models(self) -> Mapping[str, ModelInfo]:
        """Every configured model by its name, the default one first; aliases are not keys."""

    async def score(self, model: ModelInfo, pairs: EncodedPairs, deadline: float) -> Scored:
        """Score pairs.

        Cancelling the call drops what has not been computed yet.

        Args:
            model: a configured model, or what an `OtherVersionError` said of it.
            pairs: as the encoder of its options, or of stricter ones, makes them; empty in, empty out.
            deadline: seconds that are left; a duration, because it crosses machines and their clocks do not.

        Raises:
            OtherVersionError: nothing was scored; the pairs have to be tokenised again.
            RequestError: OVERLOADED (too much is queued), UNAVAILABLE (nothing that scores is there), DEADLINE, or
                INTERNAL (the forward pass failed).
        """

    async def ready(self, model: str) -> bool:
        """Whether something is there that would score pairs of a model now."""
