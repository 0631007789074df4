"""Pairs that stay text: what a scorer of somebody else's takes travels through the same batches as token ids do."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rankmill.errors import ModelError, NonFiniteScoreError, UsageError
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.text_tokens import readable
from rankmill.types import EncodedPairs

BYTES_PER_TOKEN = 4
"""What a token of such texts is taken to be where tokens are counted, for limits, queues and bills: English has 4 to 5
letters per token. An estimate, since nobody here knows what the scorer makes of them."""
_NAMED_IN_MESSAGES = 10


class TextEncoder:
    """Turns pairs of texts into their UTF-8 bytes, the query's before the document's. Survives pickling."""

    def encode(self, queries: Sequence[str], texts: Sequence[str]) -> EncodedPairs:
        """Write pairs `(queries[i], texts[i])` as bytes, each in the place of a token id; nothing is cut.

        Args:
            queries: n strings; may be empty strings.
            texts: n strings; may be empty strings. A lone surrogate, which UTF-8 cannot hold, becomes U+FFFD.

        Returns:
            n pairs in input order; `decode` gives the texts back.

        Raises:
            ValueError: the two sequences differ in length. This is a bug of the caller.
        """
        if len(queries) != len(texts):
            raise ValueError(f"{len(queries)} queries with {len(texts)} texts; pairs need as many of each.")
        sides = [
            (readable(query).encode(), readable(text).encode()) for query, text in zip(queries, texts, strict=True)
        ]
        offsets = np.zeros(len(sides) + 1, dtype=np.int64)
        np.cumsum([len(query) + len(text) for query, text in sides], out=offsets[1:])
        return EncodedPairs(
            token_ids=np.frombuffer(b"".join(part for pair in sides for part in pair), dtype=np.uint8).astype(np.int32),
            offsets=offsets,
            document_starts=np.asarray([len(query) for query, _ in sides], dtype=np.int32),
            truncated=np.zeros(len(sides), dtype=np.bool_),
        )


def decode(pairs: EncodedPairs) -> tuple[list[str], list[str]]:
    """Queries and documents of pairs that a `TextEncoder` made."""
    everything = pairs.token_ids.astype(np.uint8).tobytes()
    starts = pairs.offsets[:-1].tolist()
    middles = (pairs.offsets[:-1] + pairs.document_starts).tolist()
    ends = pairs.offsets[1:].tolist()
    queries = [everything[start:middle].decode() for start, middle in zip(starts, middles, strict=True)]
    texts = [everything[middle:end].decode() for middle, end in zip(middles, ends, strict=True)]
    return queries, texts


def checked_scores(model: str, scores: object, count: int) -> NDArray[np.float32]:
    """What a foreign scorer returned, as float32.

    Args:
        model: its name, for messages.
        scores: what it returned: a sequence or an array of numbers.
        count: pairs that it was given.

    Returns:
        Shape (count,).

    Raises:
        ModelError: something else than `count` numbers.
        NonFiniteScoreError: naming the pairs whose score is NaN or infinite, also as float32.
    """
    try:
        # None, which is what many servers make of NaN, becomes NaN
        found = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # torch raises the last for tensors with gradients
        raise ModelError(f"The scorer {model!r} returned something that is no list of numbers: {error}.") from error
    if found.shape != (count,):
        what = f"{found.size} scores" if found.ndim == 1 else f"an array of shape {found.shape}"
        raise ModelError(f"The scorer {model!r} returned {what} for {count} pairs; it must return one number per pair.")
    with np.errstate(over="ignore"):
        result = found.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(result)).tolist()
    if bad:
        raise not_finite(model, bad, count)
    return result


def not_finite(model: str, bad: list[int], count: int) -> NonFiniteScoreError:
    """The error that names the pairs at `bad`, of `count`, whose scores are not finite."""
    named = ", ".join(str(i) for i in bad[:_NAMED_IN_MESSAGES]) + (", …" if len(bad) > _NAMED_IN_MESSAGES else "")
    return NonFiniteScoreError(
        f"The scorer {model!r} returned NaN, infinity or null for {len(bad)} of {count} pairs (positions {named}).", bad
    )


def refuse_settings(options: ScorerOptions) -> None:
    """Refuse settings that cannot reach a scorer which does its own tokenising and computing.

    Raises:
        UsageError: naming the first of them.
    """
    asked = {
        "--revision": options.revision is not None,
        "--instruction": options.instruction is not None,
        "--template": options.template is not None,
        "--max-length": options.max_length is not None,
        "--max-query-tokens": options.max_query_tokens is not None,
        "--max-document-tokens": options.max_document_tokens is not None,
        "--long-documents chunk": options.long_documents == "chunk",
    }
    for flag, given in asked.items():
        if given:
            raise UsageError(
                f"{flag} was given with --model {options.model!r}, which takes texts as they are and does its own "
                "tokenising: leave it out."
            )
