"""Reading a fast tokenizer's tokenizer.json the way transformers does, with user text that stays text."""

from collections.abc import Collection, Mapping
from typing import Any

from rankmill.errors import ModelError

_BERT_SETTINGS = {
    # tokenizer_config.json -> BertNormalizer
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}


def with_config(
    model: str, tokenizer_json: Mapping[str, Any], tokenizer_config: Mapping[str, Any], *, lower_case: bool = False
) -> dict[str, Any]:
    """Apply what tokenizer_config.json states over tokenizer.json, as transformers does when it builds its class.

    Only settings that are stated and that contradict the file change anything: casing, accents and Chinese characters
    of a BERT normalizer; `add_prefix_space` of a byte-level pre-tokenizer.

    Args:
        model: the model's name, for messages.
        tokenizer_json: tokenizer.json.
        tokenizer_config: tokenizer_config.json, or empty.
        lower_case: what sentence-transformers is told (`do_lower_case` in sentence_bert_config.json): as there, letters
            are lowered first where the tokenizer does not do it anyway.

    Returns:
        A new tokenizer.json without truncation, padding and dropout: length is our business, chance nobody's.

    Raises:
        ModelError: tokenizer.json is not a fast tokenizer's.
    """
    if not isinstance(tokenizer_json.get("model"), Mapping):
        raise ModelError(f"The tokenizer.json of the model {model!r} is not a fast tokenizer's: it has no 'model'.")
    result = {**tokenizer_json, "truncation": None, "padding": None}
    if result["model"].get("dropout") is not None:
        result["model"] = {**result["model"], "dropout": None}
    normalizer = _part(result, "normalizer")
    if normalizer.get("type") == "BertNormalizer":
        stated = {
            ours: tokenizer_config[theirs] for theirs, ours in _BERT_SETTINGS.items() if theirs in tokenizer_config
        }
        result["normalizer"] = {**normalizer, **stated}
    if lower_case and not _part(result, "normalizer").get("lowercase", False):
        steps = [{"type": "Lowercase"}, *([result["normalizer"]] if result.get("normalizer") else [])]
        result["normalizer"] = {"type": "Sequence", "normalizers": steps}
    pre_tokenizer = _part(result, "pre_tokenizer")
    if pre_tokenizer.get("type") == "ByteLevel" and isinstance(tokenizer_config.get("add_prefix_space"), bool):
        result["pre_tokenizer"] = {**pre_tokenizer, "add_prefix_space": tokenizer_config["add_prefix_space"]}
    return result


def reading_specials_as_text(tokenizer_json: Mapping[str, Any], hidden: Collection[int] = ()) -> dict[str, Any]:
    """Make it impossible for text to become a special token.

    `encode_special_tokens` alone stops the search for special tokens in the text; the vocabulary can still produce
    them: XLM-R's holds `</s>` as a piece of score 0, better than any real word. So every special token is renamed to a
    string with spaces in it, in the vocabulary and in the list of added tokens, ids unchanged: a tokenizer that splits
    at spaces, or that rewrites them before it looks pieces up, cannot arrive at such a piece.

    Args:
        tokenizer_json: as `with_config` returns it; the post-processor is dropped, since it refers to the old names.
        hidden: ids of added tokens to treat like special ones.
    """
    added = [token for token in tokenizer_json.get("added_tokens", []) if isinstance(token, Mapping)]
    names = {
        str(token["content"]): f"special token {token['id']} of this model"
        for token in added
        if token.get("special") or token["id"] in hidden
    }
    model = dict(tokenizer_json["model"])
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, Mapping):
        model["vocab"] = {names.get(piece, piece): number for piece, number in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    renamed = [
        {**token, "content": names[token["content"]], "special": True} if token["content"] in names else token
        for token in added
    ]
    return {**tokenizer_json, "model": model, "added_tokens": renamed, "post_processor": None}


def _part(tokenizer_json: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = tokenizer_json.get(name)
    return part if isinstance(part, Mapping) else {}
