"""The scorer of every model that reads query and document together: packs pairs, runs an engine, restores the order."""

import logging
import platform
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankmill import __version__
from rankmill.errors import NonFiniteScoreError, PairTooLargeError
from rankmill.scoring.card import ModelCard, digest
from rankmill.scoring.card_scorer import CardScorer
from rankmill.scoring.chunks import score
from rankmill.scoring.engines.engine import Engine
from rankmill.scoring.model import Encoder
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.packing import CPU_BATCH, pack
from rankmill.scoring.probe import good_budget
from rankmill.types import EncodedPairs

log = logging.getLogger(__name__)

_NAMED_IN_MESSAGES = 10


class PairScorer(CardScorer):
    """Scores pairs in micro-batches of a bounded number of tokens.

    Args:
        card: what the model is.
        encoder: its pair assembly.
        engine: its forward pass.
        options: the batch size, where one was asked for.
    """

    def __init__(self, card: ModelCard, encoder: Encoder, engine: Engine, options: ScorerOptions) -> None:
        super().__init__(card, encoder)
        self.batch_tokens = _budget(card, engine, options)
        self.engine = engine
        self._packed: tuple[tuple[int, bytes], list[NDArray[np.int64]]] | None = None

    def logits(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        """Run the forward pass.

        Returns:
            Float32, shape (n,), input order. Empty in, empty out.

        Raises:
            NonFiniteScoreError: naming the pairs whose logit is NaN or infinite.
            PairTooLargeError: naming the pairs that do not fit into memory.
        """
        if pairs.chunks is not None:
            return score(self, pairs).logits
        result = np.zeros(len(pairs), dtype=np.float32)
        done, outputs, too_large = self._run(pairs)
        if done:
            result[np.concatenate(done)] = self.engine.collect(outputs)
        if too_large:
            raise PairTooLargeError(
                f"{len(too_large)} of {len(pairs)} pairs do not fit into the memory of {self.engine.device}, not even "
                f"alone: the longest has {int(pairs.lengths[too_large].max()):,} tokens. Lower --max-length.",
                sorted(too_large),
            )
        refuse_non_finite(self.card.model, result)
        return result

    def batches(self, lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The micro-batches of pairs with `lengths` tokens, shape (n,): positions; see `pack`."""
        asked = (self.batch_tokens, lengths.tobytes())
        known = self._packed
        if known is None or known[0] != asked:  # the padding of a call is asked for when it was made
            fixed = CPU_BATCH if self.engine.device == "cpu" else None
            self._packed = known = asked, pack(lengths, self.batch_tokens, fixed)
        return known[1]

    def _run(self, pairs: EncodedPairs) -> tuple[list[NDArray[np.int64]], list[Any], list[int]]:
        """Run every micro-batch; where one does not fit into memory, that one and all after it are made smaller.

        Returns:
            Rows of each batch that ran, its output, and the rows that do not fit even alone.
        """
        lengths = pairs.lengths
        pending = self.batches(lengths)[::-1]
        done: list[NDArray[np.int64]] = []
        outputs: list[Any] = []
        too_large: list[int] = []
        while pending:
            rows = pending.pop()
            try:
                outputs.append(self.engine.run(pairs, rows))
            except Exception as error:
                if not self.engine.is_out_of_memory(error):
                    raise
                if len(rows) == 1:
                    too_large.append(int(rows[0]))
                    continue
                self.batch_tokens = int(lengths[rows].max()) * (len(rows) // 2)
                log.warning("out of memory; going on with %s tokens per batch", f"{self.batch_tokens:,}")
                left = np.concatenate([rows, *pending[::-1]])
                pending = [left[part] for part in self.batches(lengths[left])][::-1]
            else:
                done.append(rows)
            self.after_pass()
        return done, outputs, too_large


def _budget(card: ModelCard, engine: Engine, options: ScorerOptions) -> int:
    if options.batch_tokens == "auto":
        key = [card.fingerprint, engine.name, engine.device, options.threads, platform.node(), __version__]
        return good_budget(engine, digest(key), card.max_length)
    return int(options.batch_tokens or engine.batch_tokens)


def refuse_non_finite(model: str, logits: NDArray[np.float32]) -> None:
    """Raise for logits that are NaN or infinite.

    Raises:
        NonFiniteScoreError: naming their positions.
    """
    bad = np.flatnonzero(~np.isfinite(logits)).tolist()
    if bad:
        named = ", ".join(str(i) for i in bad[:_NAMED_IN_MESSAGES]) + (", …" if len(bad) > _NAMED_IN_MESSAGES else "")
        raise NonFiniteScoreError(
            f"The model {model!r} gave NaN or infinity for {len(bad)} of {len(logits)} pairs (positions {named}); its "
            "weights are damaged, or --precision is too narrow for them: try float32.",
            bad,
        )
