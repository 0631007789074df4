"""The torch engine of models that read query and document apart: hidden states to vectors, vectors to scores.

Everything after the network is computed in float32, whatever the network's precision.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from rankmill.scoring.batches import padded
from rankmill.scoring.engines.torch_device import fetch, is_out_of_memory, move
from rankmill.scoring.engines.torch_layers import Layer, load_body, load_layer, pad_id_of, pool, unit, width_of
from rankmill.scoring.engines.torch_padded import choose_device, set_up_torch
from rankmill.scoring.modules import check_widths
from rankmill.scoring.options import ScorerOptions
from rankmill.types import EncodedPairs

if TYPE_CHECKING:
    from rankmill.scoring.families.bi_encoder import BiEncoder
    from rankmill.scoring.families.late_interaction import LateInteraction

# as in torch_padded.py
_BATCH_TOKENS = {"cpu": 2_048, "cuda": 65_536}
_COMPARED_NUMBERS = {"cpu": 4_000_000, "cuda": 200_000_000}
"""Numbers that comparing token vectors may hold at once: the gathered vectors and their products."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embeddings of `n` sequences: one vector each, or one per token."""

    values: torch.Tensor
    """Float32, shape (n, most, width)."""
    counts: torch.Tensor
    """Bool, shape (n, most): which of them are there and take part."""


class Head(Protocol):
    """What comes after the network."""

    def attended(self, token_ids: torch.Tensor, real: torch.Tensor, *, queries: bool) -> torch.Tensor:
        """Which tokens the network sees: bool, shape (n, longest), given the ids and which are not padding."""

    def vectors(self, hidden: torch.Tensor, token_ids: torch.Tensor, real: torch.Tensor, *, queries: bool) -> Vectors:
        """Hidden states, float32, shape (n, longest, hidden size), to embeddings."""


class PooledHead:
    """One vector per sequence.

    Args:
        poolings: `cls`, `max`, `mean` or `lasttoken`; several are joined.
        layers: what comes after, in order.
        similarity: `cosine` or `dot`.
    """

    def __init__(self, poolings: Sequence[str], layers: Sequence[Layer], similarity: str) -> None:
        self._poolings = poolings
        self._layers = layers
        self._similarity = similarity

    def attended(self, token_ids: torch.Tensor, real: torch.Tensor, *, queries: bool) -> torch.Tensor:  # noqa: ARG002
        """All but the padding."""
        return real

    def vectors(
        self,
        hidden: torch.Tensor,
        token_ids: torch.Tensor,  # noqa: ARG002 - the protocol's
        real: torch.Tensor,
        *,
        queries: bool,  # noqa: ARG002
    ) -> Vectors:
        """Pool, then run the layers."""
        values = torch.cat([pool(name, hidden, real) for name in self._poolings], dim=1)
        for layer in self._layers:
            values = layer(values)
        if self._similarity == "cosine":
            values = unit(values)
        return Vectors(values[:, None, :], torch.ones_like(real[:, :1]))


class TokenHead:
    """One vector of unit length per token.

    Args:
        layers: from hidden states to token vectors.
        skipped: tokens of a document that take no part, int64.
        filler: the token that fills queries up, or None.
        attend_to_filler: whether the network sees it.
    """

    def __init__(
        self, layers: Sequence[Layer], skipped: torch.Tensor, filler: int | None, *, attend_to_filler: bool
    ) -> None:
        self._layers = layers
        self._skipped = skipped
        self._hidden_filler = None if attend_to_filler else filler

    def attended(self, token_ids: torch.Tensor, real: torch.Tensor, *, queries: bool) -> torch.Tensor:
        """All but the padding; and but the filler, where a query's text is not to see it (it still sees the text)."""
        if not queries or self._hidden_filler is None:
            return real
        return real & (token_ids != self._hidden_filler)

    def vectors(self, hidden: torch.Tensor, token_ids: torch.Tensor, real: torch.Tensor, *, queries: bool) -> Vectors:
        """Project and bring to unit length; in a document, leave out what is to be skipped."""
        values = hidden
        for layer in self._layers:
            values = layer(values)
        counts = real if queries else real & ~torch.isin(token_ids, self._skipped)
        return Vectors(unit(values), counts)


class TorchEmbedder:
    """Runs a network and its head on padded micro-batches.

    Args:
        network: of transformers; its hidden states come out as float32.
        head: what comes after.
        device: where the network is.
        pad_id: what fills up a batch.
    """

    name = "torch"

    def __init__(self, network: Any, head: Head, device: torch.device, pad_id: int) -> None:
        self.device = device.type
        self.batch_tokens = _BATCH_TOKENS[device.type]
        self._network = network
        self._head = head
        self._torch_device = device
        self._pad_id = pad_id

    def embed(self, sequences: EncodedPairs, rows: NDArray[np.int64], *, queries: bool) -> Vectors:
        """Embed the sequences at `rows`."""
        inputs = padded(sequences, rows, pad_id=self._pad_id, segments=False)
        token_ids, mask = (move(inputs[name], self._torch_device) for name in ("input_ids", "attention_mask"))
        real = mask.bool()
        with torch.inference_mode():
            attended = self._head.attended(token_ids, real, queries=queries)
            hidden = self._network(input_ids=token_ids, attention_mask=attended.long()).last_hidden_state.float()
            return self._head.vectors(hidden, token_ids, real, queries=queries)

    def join(self, embedded: Sequence[Vectors]) -> Vectors:
        """Put batches one after the other, padded to the most vectors."""
        most = max(part.values.shape[1] for part in embedded)
        values = [functional.pad(part.values, (0, 0, 0, most - part.values.shape[1])) for part in embedded]
        counts = [functional.pad(part.counts, (0, most - part.counts.shape[1])) for part in embedded]
        return Vectors(torch.cat(values), torch.cat(counts))

    def compare(
        self, queries: Vectors, documents: Vectors, which: NDArray[np.int64], where: NDArray[np.int64]
    ) -> torch.Tensor:
        """Score query `which[i]` with document `where[i]`, for every i."""
        with torch.inference_mode():
            return best_matches(queries, documents, move(which, self._torch_device), move(where, self._torch_device))

    def collect(self, scores: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        """Fetch scores from the device, all at once."""
        return fetch(scores)

    def fetch(self, embedded: Vectors) -> NDArray[np.float32]:
        """Fetch the vectors of pooled sequences from the device."""
        values: NDArray[np.float32] = embedded.values[:, 0].cpu().numpy()
        return values

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether the device, or the allocator of the CPU, had no room."""
        return is_out_of_memory(error)


def load_bi_encoder(model: "BiEncoder", options: ScorerOptions) -> TorchEmbedder:
    """Load a bi-encoder's weights.

    Raises:
        ModelError: the weights do not fit the architecture, or the layers each other.
        UsageError: the device is not there.
    """
    set_up_torch(options)
    device = choose_device(options)
    network = load_body(model.files, model.body, options, device)
    head = model.head
    check_widths(model.files.name, width_of(network) * len(head.poolings), head.dense)
    layers = [unit if layer is None else load_layer(model.files.name, layer, device) for layer in head.layers]
    return TorchEmbedder(network, PooledHead(head.poolings, layers, head.similarity), device, pad_id_of(network))


def load_late_interaction(model: "LateInteraction", options: ScorerOptions) -> TorchEmbedder:
    """Load a late-interaction model's weights.

    Raises:
        ModelError: the weights do not fit the architecture, or the layers each other.
        UsageError: the device is not there.
    """
    set_up_torch(options)
    device = choose_device(options)
    spec = model.interaction
    network = load_body(model.files, model.body, options, device, *spec.beside_the_network)
    check_widths(model.files.name, width_of(network), spec.layers)
    head = TokenHead(
        [load_layer(model.files.name, layer, device) for layer in spec.layers],
        torch.tensor(spec.skipped, dtype=torch.int64, device=device),
        model.query.filler if model.query.filled_to else None,
        attend_to_filler=spec.attend_to_filler,
    )
    return TorchEmbedder(network, head, device, pad_id_of(network))


def best_matches(queries: Vectors, documents: Vectors, which: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Sum, over the vectors of a query, of the largest product with a vector of a document.

    With one vector on either side, that is their product. A bounded number of pairs at a time.

    Args:
        queries: n sequences.
        documents: m sequences, each with a vector that takes part.
        which: positions of queries, int64, shape (pairs,).
        where: positions of documents, int64, shape (pairs,).

    Returns:
        Float32, shape (pairs,).
    """
    (_, long, width), short = documents.values.shape, queries.values.shape[1]
    step = max(1, _COMPARED_NUMBERS[which.device.type] // (long * width + short * width + long * short))
    found = []
    for start in range(0, len(which), step):
        left, right = which[start : start + step], where[start : start + step]
        products = torch.bmm(queries.values[left], documents.values[right].transpose(1, 2))  # [pairs, short, long]
        best = products.masked_fill(~documents.counts[right][:, None, :], -torch.inf).amax(dim=2)
        found.append(best.masked_fill(~queries.counts[left], 0.0).sum(dim=1))
    return torch.cat(found)
