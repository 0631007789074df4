"""The torch engine: token-budget micro-batches through transformers' own model code."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rankmill.errors import NonFiniteScoreError, UsageError
from rankmill.scoring.card import ModelCard
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.packing import pack
from rankmill.scoring.tokens import PairEncoder
from rankmill.types import EncodedPairs

# Activations of a batch should stay in the CPU's cache: on two cores, 1,024 to 2,048 tokens were the fastest. A GPU
# wants its multiprocessors filled instead.
_BATCH_TOKENS = {"cpu": 2_048, "cuda": 65_536}
_NAMED_IN_MESSAGES = 10


def choose_device(options: ScorerOptions) -> torch.device:
    """Resolve `auto`, and refuse what this machine lacks.

    Raises:
        UsageError: no GPU for `cuda`, or float16 on a CPU.
    """
    there = torch.cuda.is_available()
    if options.device == "cuda" and not there:
        raise UsageError("--device cuda was given, but torch sees no GPU here; use --device auto or cpu.")
    device = "cuda" if there and options.device != "cpu" else "cpu"
    if device == "cpu" and options.precision == "float16":
        raise UsageError("--precision float16 needs a GPU; on a CPU use bfloat16 or float32.")
    return torch.device(device)


def use_threads(options: ScorerOptions) -> None:
    """Set the number of CPU threads for the whole process, where one was asked for."""
    if options.threads is not None:
        torch.set_num_threads(options.threads)


class TorchScorer:
    """A cross-encoder on this process's device.

    Args:
        card: what the model is.
        encoder: its pair assembly.
        network: its classification model, on `device`, ready for inference.
        device: where to run.
        options: batch size and threads.
    """

    def __init__(
        self,
        card: ModelCard,
        encoder: PairEncoder,
        network: Any,
        device: torch.device,
        options: ScorerOptions,
    ) -> None:
        use_threads(options)
        self.card = card
        self.batch_tokens = options.batch_tokens or _BATCH_TOKENS[device.type]
        self.device = device
        self._encoder = encoder
        self._network = network
        padding: int | None = self._network.config.pad_token_id
        self._pad_id = 0 if padding is None else padding

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints give equal logits, up to the rounding of the device."""
        return self.card.fingerprint

    @property
    def activation(self) -> str:
        """`identity` or `sigmoid`."""
        return self.card.activation

    def encode(self, queries: Sequence[str], texts: Sequence[str]) -> EncodedPairs:
        """Tokenise pairs `(queries[i], texts[i])`; see `PairEncoder.encode`."""
        return self._encoder.encode(queries, texts)

    def logits(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        """Run the forward pass.

        Returns:
            Float32, shape (n,), input order. Empty in, empty out.

        Raises:
            NonFiniteScoreError: naming the pairs whose logit is NaN or infinite.
        """
        result = np.zeros(len(pairs), dtype=np.float32)
        lengths = pairs.lengths
        batches = pack(lengths, self.batch_tokens)
        if not batches:
            return result
        with torch.inference_mode():
            # results stay on the device until the end, so that a GPU never waits for the CPU to fetch one
            outputs = [self._forward(pairs, lengths[batch], batch) for batch in batches]
            result[np.concatenate(batches)] = torch.cat(outputs).cpu().numpy()
        _refuse_non_finite(self.card.model, result)
        return result

    def _forward(self, pairs: EncodedPairs, lengths: NDArray[np.int64], batch: NDArray[np.int64]) -> torch.Tensor:
        """Logits of the pairs at `batch`, which have these `lengths`: float32, shape (len(batch),), on the device."""
        columns = np.arange(int(lengths.max()))
        real = columns < lengths[:, None]
        token_ids = np.full(real.shape, self._pad_id, dtype=np.int64)
        token_ids[real] = pairs.token_ids[_positions(pairs.offsets[batch], lengths)]
        inputs = {"input_ids": token_ids, "attention_mask": real.astype(np.int64)}
        if self.card.template.segments:
            inputs["token_type_ids"] = (real & (columns >= pairs.document_starts[batch][:, None])).astype(np.int64)
        output = self._network(**{name: self._move(array) for name, array in inputs.items()})
        logits: torch.Tensor = output.logits[:, 0]
        return logits.float()

    def _move(self, array: NDArray[np.int64]) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device.type == "cuda" else tensor


def _positions(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions `starts[i], …, starts[i] + lengths[i] - 1` for every i, one after the other."""
    ends = np.cumsum(lengths)
    positions: NDArray[np.int64] = np.arange(int(ends[-1])) + np.repeat(starts - (ends - lengths), lengths)
    return positions


def _refuse_non_finite(model: str, logits: NDArray[np.float32]) -> None:
    bad = np.flatnonzero(~np.isfinite(logits)).tolist()
    if bad:
        named = ", ".join(str(i) for i in bad[:_NAMED_IN_MESSAGES]) + (", …" if len(bad) > _NAMED_IN_MESSAGES else "")
        raise NonFiniteScoreError(
            f"The model {model!r} gave NaN or infinity for {len(bad)} of {len(logits)} pairs (positions {named}); its "
            "weights are damaged, or --precision is too narrow for them: try float32.",
            bad,
        )
