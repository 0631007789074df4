"""Token ids of training pairs: texts are tokenised once, pairs are assembled when a step needs them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rankmill.errors import ModelError


@dataclass(frozen=True, slots=True)
class PaddedPairs:
    """One micro-batch, ready for a forward pass; all of shape (batch, width), int64."""

    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor


class PairEncoder:
    """Builds `[CLS] query [SEP] document [SEP]`; the document gives way, the query only beyond half of the length.

    Args:
        tokenizer: a fast tokenizer of the BERT kind, with `cls`, `sep` and `pad` tokens.

    Raises:
        ModelError: the tokenizer lacks one of them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        ids = {"cls": tokenizer.cls_token_id, "sep": tokenizer.sep_token_id, "pad": tokenizer.pad_token_id}
        lacking = [name for name, value in ids.items() if value is None]
        if lacking:
            raise ModelError(f"The tokenizer has no {' and no '.join(lacking)} token; training needs a BERT-like body.")
        self._tokenizer = tokenizer
        self._cls, self._sep, self._pad = int(ids["cls"]), int(ids["sep"]), int(ids["pad"])

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text without special tokens, input order."""
        found: list[list[int]] = []
        for start in range(0, len(texts), 1000):
            found += self._tokenizer(list(texts[start : start + 1000]), add_special_tokens=False, verbose=False)[
                "input_ids"
            ]
        return found

    def pair(self, query: Sequence[int], document: Sequence[int], max_length: int) -> tuple[list[int], int]:
        """Assemble one pair of at most `max_length` tokens.

        Returns:
            Token ids and the position where the document starts (where token types become 1).
        """
        query = query[: (max_length - 3) // 2] if len(query) + len(document) + 3 > max_length else query
        head = [self._cls, *query, self._sep]
        return [*head, *document[: max(0, max_length - len(head) - 1)], self._sep], len(head)

    def pad(self, pairs: Sequence[tuple[list[int], int]], device: torch.device) -> PaddedPairs:
        """Pad assembled pairs to the longest and move them to the device."""
        width = max(len(ids) for ids, _ in pairs)
        input_ids = torch.full((len(pairs), width), self._pad, dtype=torch.int64)
        mask = torch.zeros_like(input_ids)
        types = torch.zeros_like(input_ids)
        for row, (ids, start) in enumerate(pairs):
            input_ids[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
            types[row, start : len(ids)] = 1
        return PaddedPairs(input_ids.to(device), mask.to(device), types.to(device))
