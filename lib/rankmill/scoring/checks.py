"""What a model's files rule out, one refusal each, in sentences that say what the model is and what to give instead."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rankmill.errors import ModelError
from rankmill.scoring.numbers import integer


def refuse_modules(model: str, folder: Path) -> None:
    """Refuse what sentence-transformers adds around a cross-encoder's network, such as a dense layer as its head."""
    path = folder / "modules.json"
    if not path.is_file():
        return
    try:
        modules = json.loads(path.read_bytes())
        types = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    except (ValueError, TypeError, KeyError) as error:
        raise ModelError(f"The modules.json of the model {model!r} cannot be read: {error!r}.") from error
    if types == ["Transformer"]:
        return
    raise ModelError(
        f"The model {model!r} adds modules of sentence-transformers to its network ({', '.join(types)} in "
        "modules.json), which this version cannot run; leaving them out would change every score."
    )


def refuse_prompt(model: str, sentence_transformers: Mapping[str, Any]) -> None:
    """Refuse a prompt that sentence-transformers puts before the text."""
    name = sentence_transformers.get("default_prompt_name")
    prompts = sentence_transformers.get("prompts") or {}
    if name is not None and prompts.get(name):
        raise ModelError(
            f"The model {model!r} puts the prompt {prompts[name]!r} before its input "
            "(config_sentence_transformers.json), which this version cannot do; without it, every score would differ."
        )


def refuse_tokenizer_code(model: str, tokenizer_config: Mapping[str, Any]) -> None:
    """Refuse a tokenizer that is Python code: the tokenizer.json beside it may be another one, or miss a part."""
    if tokenizer_config.get("auto_map"):
        raise ModelError(
            f"The model {model!r} brings its own Python code for its tokenizer (auto_map in tokenizer_config.json), "
            "which is never run; without it, tokens might differ. Save the model with a tokenizer of transformers."
        )


def refuse_quantised(model: str, config: Mapping[str, Any]) -> None:
    """Refuse weights that only the library that wrote them can read."""
    if config.get("quantization_config"):
        raise ModelError(
            f"The weights of the model {model!r} are quantised (quantization_config in config.json), which needs the "
            "library that wrote them. Give the model as float32, bfloat16 or float16."
        )


def check_vocabulary(
    model: str, config: Mapping[str, Any], tokenizer_json: Mapping[str, Any], special: Sequence[int]
) -> None:
    """Refuse a tokenizer that can give ids beyond the model's embeddings: it belongs to another model.

    Args:
        model: the model's name, for messages.
        config: config.json.
        tokenizer_json: tokenizer.json.
        special: ids that are put around the texts.
    """
    vocabulary = tokenizer_json["model"].get("vocab", {})
    ids = vocabulary.values() if isinstance(vocabulary, Mapping) else range(len(vocabulary))
    added = [token["id"] for token in tokenizer_json.get("added_tokens", []) if not token.get("special")]
    largest = max([*ids, *added, *special])
    embeddings = integer(config, "vocab_size", 0)
    if largest >= embeddings:
        raise ModelError(
            f"Tokenizer and weights of the model {model!r} do not belong together: tokenizer.json has ids up to "
            f"{largest}, the model embeds {embeddings} (vocab_size in config.json)."
        )
