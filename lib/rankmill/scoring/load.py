"""The ways in: `check_model` (quick, before any accelerator starts), `load_encoder` and `load_scorer`."""

import json

from rankmill.errors import ModelError
from rankmill.scoring.card import ModelCard, make_card
from rankmill.scoring.locate import locate
from rankmill.scoring.model_files import ModelFiles, read_model
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.scorer import Scorer
from rankmill.scoring.tokenizer_files import reading_specials_as_text
from rankmill.scoring.tokens import PairEncoder


def check_model(options: ScorerOptions) -> ModelCard:
    """Say what a model is, or why it cannot be used, without loading torch or the weights.

    A hub id is fetched into the hub's cache and pinned to a commit: `dataclasses.replace(options,
    revision=card.revision)` makes every other machine load the same one.

    Raises:
        ModelError: the model cannot be used.
        UsageError: a limit in `options` does not fit the model.
    """
    return make_card(_read(options), options)


def load_encoder(options: ScorerOptions) -> PairEncoder:
    """Load what tokenises, for processes that never run the network: no torch, no weights.

    Raises:
        ModelError: the model cannot be used.
        UsageError: a limit in `options` does not fit the model.
    """
    return _encoder(_read(options))


def load_scorer(options: ScorerOptions) -> Scorer:
    """Load the cross-encoder.

    Raises:
        ModelError: the model cannot be used.
        UsageError: a limit in `options` does not fit the model, or the device is not there.
    """
    from rankmill.scoring.torch_model import load_network  # noqa: PLC0415 - torch takes seconds to import
    from rankmill.scoring.torch_scorer import TorchScorer, choose_device  # noqa: PLC0415

    files = _read(options)
    device = choose_device(options)
    network = load_network(files, options.precision, device)
    return TorchScorer(make_card(files, options), _encoder(files), network, device, options)


def _read(options: ScorerOptions) -> ModelFiles:
    try:
        return read_model(locate(options), options)
    except OSError as error:
        raise ModelError(f"The files of the model {options.model!r} cannot be read: {error}.") from error


def _encoder(files: ModelFiles) -> PairEncoder:
    return PairEncoder(json.dumps(reading_specials_as_text(files.tokenizer_json)), files.template, files.limits)
