"""The tokens of plain texts, of a long one only as many as can matter: what all encoders are made of."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rankmill.scoring.prefix import head, may_cut

# English has 4 to 5 characters per token; with 8, nearly every long text needs one round
_CHARACTERS_PER_TOKEN = 8
# An encoding holds some 100 bytes per token until its ids are taken; a shard of 8,192 pairs at once would be 250 MB
_TEXTS_AT_A_TIME = 256
_CHARACTERS_AT_A_TIME = 4_000_000
_SURROGATE = re.compile("[\ud800-\udfff]")
_NO_SPANS = np.zeros((0, 2), dtype=np.int32)


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text's tokens, without special tokens; maybe only its first."""

    ids: NDArray[np.int32]
    """Shape (tokens,)."""
    spans: NDArray[np.int32]
    """Shape (tokens, 2): the characters that each came from; shape (0, 2) where nobody asked."""

    def span(self, part: slice) -> tuple[int, int]:
        """First character of a non-empty run of tokens, and the one after its last."""
        where = self.spans[part]
        return int(where[:, 0].min()), int(where[:, 1].max())


class TextTokenizer:
    """Tokenises texts in which special tokens are text like any other. Survives pickling.

    Args:
        tokenizer_json: `tokenizer_files.reading_specials_as_text`, as JSON text.
    """

    def __init__(self, tokenizer_json: str) -> None:
        self._json = tokenizer_json
        self.tokenizer: Tokenizer = Tokenizer.from_str(tokenizer_json)
        self.tokenizer.encode_special_tokens = True  # not part of the JSON, hence __reduce__
        self.may_cut = may_cut(json.loads(tokenizer_json))

    def __reduce__(self) -> tuple[type["TextTokenizer"], tuple[str]]:
        return TextTokenizer, (self._json,)

    def tokens(self, texts: Sequence[str], needed: int | None = None, *, spans: bool = False) -> list[Tokens]:
        """Tokenise.

        Args:
            texts: any strings; a lone surrogate, which UTF-8 cannot hold, becomes U+FFFD.
            needed: give at most so many tokens of each text, its first; None for all of them.
            spans: say as well which characters the tokens came from, with surrogate pairs joined.

        Returns:
            Tokens per text, in the order of the texts.
        """
        whole = [readable(text) for text in texts]
        if needed is None or not self.may_cut:
            return self._encode(whole, needed, spans=spans)
        characters = needed * _CHARACTERS_PER_TOKEN
        heads = [head(text, characters) for text in whole]
        found = self._encode(heads, needed, spans=spans)
        while short := [i for i, part in enumerate(heads) if len(found[i].ids) < needed and len(part) < len(whole[i])]:
            # few tokens in many characters, such as words that are one unknown token each, or long runs of blanks
            characters *= _CHARACTERS_PER_TOKEN
            for i in short:
                heads[i] = head(whole[i], characters)
            for i, more in zip(short, self._encode([heads[i] for i in short], needed, spans=spans), strict=True):
                found[i] = more
        return found

    def _encode(self, texts: Sequence[str], needed: int | None, *, spans: bool) -> list[Tokens]:
        # the fast one knows no spans
        encode = self.tokenizer.encode_batch if spans else self.tokenizer.encode_batch_fast
        found: list[Tokens] = []
        for batch in _batches(texts):
            for encoding in encode(batch, add_special_tokens=False):
                ids = np.asarray(encoding.ids[:needed], dtype=np.int32)
                where = np.asarray(encoding.offsets[:needed], dtype=np.int32).reshape(-1, 2) if spans else _NO_SPANS
                found.append(Tokens(ids, where))
        return found


def readable(text: str) -> str:
    """Join surrogate pairs and replace lone surrogates, which UTF-8 cannot hold, by U+FFFD."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Cut texts into batches of a bounded number of texts and, but for a single text, of characters."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        if batch and (len(batch) == _TEXTS_AT_A_TIME or characters + len(text) > _CHARACTERS_AT_A_TIME):
            yield batch
            batch, characters = [], 0
        batch.append(text)
        characters += len(text)
    if batch:
        yield batch
