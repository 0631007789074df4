"""How much of a long text has to be tokenised to know its first tokens.

A 5 MB document and a model that reads 512 tokens: nearly all of the tokenizer's work would be thrown away. Cutting the
text early is safe only if the tokens of the part are the first tokens of the whole, and that holds when

* the cut lies between a visible character and a space, tab or line feed,
* the normalizer looks at neighbouring characters only, and never across such a cut,
* the pre-tokenizer splits there, so that the model (WordPiece, BPE, Unigram) never sees both sides together, and
* no added token reaches across.

`may_cut` decides it from tokenizer.json by an allow-list; for any other tokenizer, texts are tokenised whole.
"""

import re
from collections.abc import Mapping
from typing import Any

_LOCAL_NORMALIZERS = frozenset(
    {
        "BertNormalizer",
        "ByteLevel",
        "Lowercase",
        "NFC",
        "NFD",
        "NFKC",
        "NFKD",
        "Nmt",
        "Precompiled",
        "Prepend",
        "Strip",
        "StripAccents",
    }
)
_SPACE_RUNS = ({"String": " "}, {"Regex": " {2,}"}, {"Regex": " +"}, {"Regex": r"\s+"}, {"Regex": r"\s{2,}|[\n\r\t]"})
_SPLITTERS = frozenset({"BertPreTokenizer", "Whitespace", "WhitespaceSplit"})
# Qwen's: white space stays out of the pieces before it, but for line breaks, which join punctuation
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# A letter, a digit or an ASCII sign before the space: other characters, such as U+200B, may become a space themselves.
# No sign before a line feed: some tokenizers make one piece of both.
_CUT = re.compile(r"(?<=[!-~\w])[ \t]|(?<=[0-9A-Za-z])\n")

_CROSSING = re.compile(r"\S\s")


def may_cut(tokenizer_json: Mapping[str, Any]) -> bool:
    """Whether the conditions above hold for a tokenizer.json."""
    normalizers = _steps(tokenizer_json.get("normalizer"), "normalizers")
    pre_tokenizers = _steps(tokenizer_json.get("pre_tokenizer"), "pretokenizers")
    added = [str(token["content"]) for token in tokenizer_json.get("added_tokens", []) if not token.get("special")]
    return (
        all(_is_local(step) for step in normalizers)
        and bool(pre_tokenizers)
        and _splits(pre_tokenizers[0])
        and not any(_CROSSING.search(content) for content in added)
    )


def head(text: str, characters: int) -> str:
    """The shortest beginning of at least `characters` characters that ends at a cut, or the whole text."""
    if len(text) <= characters:
        return text
    cut = _CUT.search(text, max(characters, 1))
    return text if cut is None else text[: cut.start()]


def _steps(part: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    """The parts of a Sequence, flattened, or the part itself."""
    if part is None:
        return []
    if part.get("type") == "Sequence":
        return [step for inner in part[key] for step in _steps(inner, key)]
    return [part]


def _is_local(normalizer: Mapping[str, Any]) -> bool:
    if normalizer["type"] == "Replace":
        return normalizer.get("pattern") in _SPACE_RUNS
    return normalizer["type"] in _LOCAL_NORMALIZERS


def _splits(pre_tokenizer: Mapping[str, Any]) -> bool:
    kind = pre_tokenizer["type"]
    if kind == "Metaspace":
        return bool(pre_tokenizer.get("split", True))
    if kind == "ByteLevel":
        # GPT-2's expression, in which only white space itself can follow white space inside a piece
        return bool(pre_tokenizer.get("use_regex", True))
    if kind == "Split":
        known = pre_tokenizer.get("pattern") == {"Regex": _QWEN_SPLIT}
        return known and pre_tokenizer.get("behavior") == "Isolated" and not pre_tokenizer.get("invert")
    return kind in _SPLITTERS
