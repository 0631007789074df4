"""What the scorer is compared with: transformers and its tokenizer, one pair at a time, in float32."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

QUERIES = (
    "how do I sort a list of numbers",
    "Straße nach München?",
    "敏捷的棕色狐狸",
    "",
    "x",
    "boiling point of water at sea level in °C",
)
TEXTS = (
    "sorted() returns a new list; use reverse=True.",
    "Water boils at 100 °C (212 °F) at sea level, and lower in the mountains. " * 2,
    "",
    "  two  spaces, a\ttab,\n\na blank line and trailing space   ",
    "السلام عليكم ורحמת 😀👩‍👩‍👧 it's 1,024",
    "NUL \0 and \u200b zero width, \ufeff mark, \r\n line",
    "x",
    "Быстрая коричневая лиса прыгает через ленивую собаку " * 2,
)


def all_pairs() -> tuple[list[str], list[str]]:
    """Every query with every text: none of them is longer than a tiny model reads."""
    return [query for query in QUERIES for _ in TEXTS], [text for _ in QUERIES for text in TEXTS]


def load_reference(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and network, loaded by transformers alone."""
    auto_tokenizer: Any = transformers.AutoTokenizer
    auto_model: Any = transformers.AutoModelForSequenceClassification
    network = auto_model.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return auto_tokenizer.from_pretrained(folder), network.eval()


def reference_ids(tokenizer: Any, query: str, text: str) -> list[int]:
    """Token ids of a pair. In a list, because `tokenizer(query, "")` would take the empty text for no text at all."""
    ids: list[int] = tokenizer([query], [text])["input_ids"][0]
    return ids


def reference_logits(folder: Path, queries: Sequence[str], texts: Sequence[str], **truncation: Any) -> NDArray[Any]:
    """Logits of a bare loop, one pair at a time, nothing padded."""
    tokenizer, network = load_reference(folder)
    logits = []
    with torch.no_grad():
        for query, text in zip(queries, texts, strict=True):
            inputs = tokenizer([query], [text], return_tensors="pt", **truncation)
            logits.append(float(network(**inputs).logits[0, 0]))
    return np.asarray(logits)
