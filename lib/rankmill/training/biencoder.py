"""Text embeddings from a local bi-encoder folder: mean pooling over tokens, unit length. The teacher's first half."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from rankmill.errors import ModelError
from rankmill.scoring.packing import pack

log = logging.getLogger(__name__)


class BiEncoder:
    """A sentence encoder with mean pooling, as all-MiniLM-L6-v2 is meant to be used.

    Args:
        folder: a transformers model folder (config, tokenizer, safetensors).
        max_length: tokens kept per text, special tokens included; 256 is what all-MiniLM-L6-v2 was built for.
        bf16: bfloat16 autocast; cosines move by about .002.

    Raises:
        ModelError: the folder does not exist.
    """

    def __init__(self, folder: Path, *, max_length: int = 256, bf16: bool = True) -> None:
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"The bi-encoder folder {folder} has no config.json; point --bi-encoder at a model folder."
            )
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = AutoModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
        self._model.to(self._device).eval()
        self._max_length = min(max_length, int(self._model.config.max_position_embeddings))
        self._bf16 = bf16

    def embed(self, texts: Sequence[str], *, tokens_per_batch: int = 8192) -> NDArray[np.float32]:
        """Embed texts.

        Returns:
            Shape (len(texts), dimensions), float32, rows of unit length, input order.
        """
        ids = self._tokenizer(list(texts), truncation=True, max_length=self._max_length)["input_ids"] if texts else []
        out = np.zeros((len(ids), int(self._model.config.hidden_size)), dtype=np.float32)
        started = told = time.monotonic()
        done = 0
        for batch in pack(np.array([len(row) for row in ids], dtype=np.int64), tokens_per_batch):
            out[batch] = self._pooled([ids[i] for i in batch])
            done += len(batch)
            if time.monotonic() - told > 10:
                told = time.monotonic()
                log.info("embedded %d of %d texts, %.0f texts/s", done, len(ids), done / (told - started))
        return out

    def _pooled(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        width = max(map(len, rows))
        ids = torch.zeros((len(rows), width), dtype=torch.int64)
        mask = torch.zeros((len(rows), width), dtype=torch.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.as_tensor(row)
            mask[i, : len(row)] = 1
        ids, mask = ids.to(self._device), mask.to(self._device)
        with torch.inference_mode(), torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._bf16):
            states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state  # [B, W, D]
        weights = mask.unsqueeze(-1).to(torch.float32)
        mean = (states.float() * weights).sum(1) / weights.sum(1)
        pooled: NDArray[np.float32] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
        return pooled
