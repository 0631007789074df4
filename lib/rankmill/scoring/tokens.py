"""From texts to token ids: our own pair assembly, the same for batch and online, with no torch in sight.

Query and document are tokenised apart from each other and joined by the model's own pair format. That gives what
transformers' `tokenizer(query, text)` gives wherever nothing has to be cut (tested for every family), and differs
where something has to: transformers' `longest_first` shortens the query for a long document, here the query is cut
first, to a fixed limit, and after that only the document gives way.
"""

import json
import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rankmill.scoring.limits import Limits
from rankmill.scoring.prefix import head, may_cut
from rankmill.scoring.template import PairTemplate
from rankmill.types import EncodedPairs

ASSEMBLY_VERSION = 1
"""Part of every fingerprint; raised when the same texts would give other token ids than before."""

# English has 4 to 5 characters per token; with 8, nearly every long text needs one round
_CHARACTERS_PER_TOKEN = 8
# An encoding holds some 100 bytes per token until its ids are taken; a shard of 8,192 pairs at once would be 250 MB
_TEXTS_AT_A_TIME = 256
_SURROGATE = re.compile("[\ud800-\udfff]")


class PairEncoder:
    """Turns pairs of texts into token ids. Survives pickling.

    Args:
        tokenizer_json: `tokenizer_files.reading_specials_as_text`, as JSON text.
        template: the model's pair format.
        limits: with room for the template, the query and at least one token of a document.
    """

    def __init__(self, tokenizer_json: str, template: PairTemplate, limits: Limits) -> None:
        self._tokenizer_json = tokenizer_json
        self._tokenizer: Tokenizer = Tokenizer.from_str(tokenizer_json)
        self._tokenizer.encode_special_tokens = True  # not part of the JSON, hence __reduce__
        self._may_cut = may_cut(json.loads(tokenizer_json))
        self.template = template
        self.limits = limits
        self._room = limits.max_length - template.special_tokens

    def __reduce__(self) -> tuple[type["PairEncoder"], tuple[str, PairTemplate, Limits]]:
        return PairEncoder, (self._tokenizer_json, self.template, self.limits)

    def encode(self, queries: Sequence[str], texts: Sequence[str]) -> EncodedPairs:
        """Tokenise pairs `(queries[i], texts[i])`.

        Each distinct string is tokenised once per call, and of a long one only as much as can matter. Text that looks
        like a special token is text. NUL is passed to the tokenizer like any character; a lone surrogate, which UTF-8
        cannot hold, becomes U+FFFD.

        Args:
            queries: n strings; may be empty strings.
            texts: n strings; may be empty strings.

        Returns:
            n pairs in input order.

        Raises:
            ValueError: the two sequences differ in length. This is a bug of the caller.
        """
        if len(queries) != len(texts):
            raise ValueError(f"{len(queries)} queries with {len(texts)} texts; pairs need as many of each.")
        distinct = {text: i for i, text in enumerate(dict.fromkeys([*queries, *texts]))}
        pool = self._tokenize(distinct)
        template = self.template
        prefix, middle, suffix = (np.asarray(part, dtype=np.int32) for part in template.parts)
        pieces: list[NDArray[np.int32]] = []
        lengths = np.zeros(len(queries), dtype=np.int64)
        starts = np.zeros(len(queries), dtype=np.int32)
        truncated = np.zeros(len(queries), dtype=np.bool_)
        for i, (query, text) in enumerate(zip(queries, texts, strict=True)):
            query_ids, text_ids = pool[distinct[query]], pool[distinct[text]]
            kept_query = query_ids[: self.limits.max_query_tokens]
            kept_text = text_ids[: self._room - len(kept_query)]
            pieces += (prefix, kept_query, middle, kept_text, suffix)
            lengths[i] = len(kept_query) + len(kept_text) + template.special_tokens
            starts[i] = len(prefix) + len(kept_query) + len(middle)
            truncated[i] = len(kept_query) < len(query_ids) or len(kept_text) < len(text_ids)
        offsets = np.zeros(len(queries) + 1, dtype=np.int64)
        np.cumsum(lengths, out=offsets[1:])
        token_ids = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int32)
        return EncodedPairs(token_ids, offsets, starts, truncated)

    def _tokenize(self, texts: Iterable[str]) -> list[NDArray[np.int32]]:
        """Token ids per text, without special tokens, one more than could ever be used: enough to see a cut."""
        whole = [_readable(text) for text in texts]
        needed = self._room + 1
        characters = needed * _CHARACTERS_PER_TOKEN
        heads = [head(text, characters) for text in whole] if self._may_cut else whole
        ids = self._token_ids(heads)
        while short := [i for i, part in enumerate(heads) if len(ids[i]) < needed and len(part) < len(whole[i])]:
            # few tokens in many characters, such as words that are one unknown token each
            characters *= _CHARACTERS_PER_TOKEN
            for i in short:
                heads[i] = head(whole[i], characters)
            for i, more in zip(short, self._token_ids([heads[i] for i in short]), strict=True):
                ids[i] = more
        return ids

    def _token_ids(self, texts: list[str]) -> list[NDArray[np.int32]]:
        ids: list[NDArray[np.int32]] = []
        for start in range(0, len(texts), _TEXTS_AT_A_TIME):
            batch = texts[start : start + _TEXTS_AT_A_TIME]
            for encoding in self._tokenizer.encode_batch_fast(batch, add_special_tokens=False):
                ids.append(np.asarray(encoding.ids[: self._room + 1], dtype=np.int32))  # noqa: PERF401 - frees the batch
        return ids


def _readable(text: str) -> str:
    """Join surrogate pairs and replace lone surrogates, which UTF-8 cannot hold, by U+FFFD."""
    if text.isascii() or not _SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
