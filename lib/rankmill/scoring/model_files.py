"""What all model families read from a folder, without torch and without the weights in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankmill.scoring.files import Tensor, read_headers, read_json, read_json_if_any, weight_files
from rankmill.scoring.locate import Location
from rankmill.scoring.model_tokenizer import ModelTokenizer
from rankmill.scoring.tokenizer_files import with_config


@dataclass(frozen=True, slots=True)
class Source:
    """Where a weight lies in files that use other names than transformers does."""

    name: str
    """In the file."""
    third: int | None = None
    """Which third of the rows, for a matrix that joins query, key and value; None for all of them."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's folder."""

    location: Location
    config: Mapping[str, Any]
    """config.json."""
    tokenizer: ModelTokenizer
    """With the settings of tokenizer_config.json and sentence_bert_config.json, without truncation and padding."""
    tokenizer_config: Mapping[str, Any]
    """tokenizer_config.json, or empty."""
    sentence_transformers: Mapping[str, Any]
    """config_sentence_transformers.json, or empty."""
    sentence_bert: Mapping[str, Any]
    """sentence_bert_config.json, or empty."""
    weights: tuple[Path, ...]
    tensors: Mapping[str, Tensor]
    """What the weight files say they hold, by the names of transformers."""
    sources: Mapping[str, Source] = field(default_factory=dict)
    """Name of transformers -> place in the files; empty where they agree."""
    weighed: bool = True
    """Whether cards are to hash the weights; a process that only tokenises need not read gigabytes."""

    @property
    def name(self) -> str:
        """The model's name, for messages."""
        return self.location.name

    @property
    def tokenizer_json(self) -> Mapping[str, Any]:
        """As `tokenizer` reads it."""
        return self.tokenizer.json

    @property
    def stated_lengths(self) -> list[Any]:
        """What tokenizer and sentence-transformers' files say about the length; may be anything."""
        return [self.tokenizer_config.get("model_max_length"), self.sentence_bert.get("max_seq_length")]


def read_files(location: Location, *, shared: bool = False, weighed: bool = True) -> ModelFiles:
    """Read a model's folder.

    Args:
        location: where it is.
        shared: whether many encoders will be made of it; see `ModelTokenizer`.
        weighed: see `ModelFiles`.

    Raises:
        ModelError: a file is missing or damaged, or the weights are not safetensors.
    """
    model, folder = location.name, location.folder
    config = read_json(model, folder / "config.json")
    weights = weight_files(model, folder)
    tokenizer_config = read_json_if_any(model, folder / "tokenizer_config.json")
    sentence_bert = read_json_if_any(model, folder / "sentence_bert_config.json")
    return ModelFiles(
        location=location,
        config=config,
        tokenizer=ModelTokenizer(
            model,
            with_config(
                model,
                read_json(model, folder / "tokenizer.json"),
                tokenizer_config,
                lower_case=bool(sentence_bert.get("do_lower_case")),
            ),
            shared=shared,
        ),
        tokenizer_config=tokenizer_config,
        sentence_transformers=read_json_if_any(model, folder / "config_sentence_transformers.json"),
        sentence_bert=sentence_bert,
        weights=weights,
        tensors=read_headers(model, weights),
        weighed=weighed,
    )
