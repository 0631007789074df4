"""Which kind of model a folder holds, from its small files alone: called before a hub model's weights are fetched."""

from collections.abc import Callable
from pathlib import Path

from rankmill.errors import ModelError
from rankmill.scoring.checks import refuse_modules
from rankmill.scoring.families import classifier
from rankmill.scoring.files import read_json
from rankmill.scoring.model import Model
from rankmill.scoring.model_files import ModelFiles
from rankmill.scoring.options import ScorerOptions

Reader = Callable[[ModelFiles, ScorerOptions], Model]


def recognise(model: str, folder: Path) -> Reader:
    """Choose what reads a model.

    Args:
        model: its name, for messages.
        folder: with config.json and the other small files; the weights need not be there.

    Raises:
        ModelError: nothing here can run it; the sentence says what it is.
    """
    if not any(folder.iterdir()):
        raise ModelError(
            f"The model folder {model!r} is empty; it must hold config.json, model.safetensors and tokenizer.json."
        )
    config = read_json(model, folder / "config.json")
    refuse_modules(model, folder)
    classifier.family_of(model, config)
    return classifier.read
