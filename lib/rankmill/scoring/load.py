"""The ways in: `check_model` (quick, before any accelerator starts), `load_encoder` and `load_scorer`."""

from rankmill.errors import ModelError
from rankmill.scoring import custom, remote
from rankmill.scoring.card import ModelCard
from rankmill.scoring.engines.choose import concrete
from rankmill.scoring.families.recognise import recognise
from rankmill.scoring.locate import locate
from rankmill.scoring.model import Encoder, Model
from rankmill.scoring.model_files import read_files
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.scorer import Scorer


def check_model(options: ScorerOptions) -> ModelCard:
    """Say what a model is, or why it cannot be used, without loading torch or the weights.

    A hub id is fetched into the hub's cache and pinned to a commit: `dataclasses.replace(options,
    revision=card.revision)` makes every other machine load the same one.

    Raises:
        ModelError: the model cannot be used.
        UsageError: a limit in `options` does not fit the model.
    """
    options = concrete(options)
    return read_model(options).card(options.precision)


def load_encoder(options: ScorerOptions) -> Encoder:
    """Load what tokenises, for processes that never run the network: no torch, no weights.

    Raises:
        ModelError: the model cannot be used.
        UsageError: a limit in `options` does not fit the model.
    """
    return read_model(options).encoder()


def load_scorer(options: ScorerOptions) -> Scorer:
    """Load the scorer.

    Raises:
        ModelError: the model cannot be used.
        UsageError: a limit in `options` does not fit the model, or the device is not there.
    """
    options = concrete(options)
    return read_model(options).load(options)


def read_model(options: ScorerOptions) -> Model:
    """Read a model's files, every check included; its weights stay on disk.

    Raises:
        ModelError: the model cannot be used.
        UsageError: a limit in `options` does not fit the model.
    """
    if options.model.startswith(custom.PREFIX):
        return custom.read(options)
    if remote.is_url(options.model):
        return remote.read(options)
    try:
        location = locate(options, lambda name, folder: recognise(name, folder, options))
        reader = recognise(location.name, location.folder, options)
        return reader(read_files(location), options)
    except OSError as error:
        raise ModelError(f"The files of the model {options.model!r} cannot be read: {error}.") from error
