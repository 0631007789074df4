"""The ways in: `check_model` (quick, before any accelerator starts), `load_encoder` and `load_scorer`."""

import threading
from dataclasses import replace
from functools import cached_property

from rankmill.errors import ModelError, UsageError
from rankmill.scoring import custom, remote
from rankmill.scoring.card import ModelCard
from rankmill.scoring.engines.choose import concrete
from rankmill.scoring.families.recognise import recognise
from rankmill.scoring.locate import Location, locate
from rankmill.scoring.model import Encoder, Model
from rankmill.scoring.model_files import ModelFiles, read_files
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


def load_scorer(options: ScorerOptions, patience: remote.Patience | None = None) -> Scorer:
    """Load the scorer.

    Args:
        options: which model, and how to run it.
        patience: with an endpoint, where the model is one; None is that of a batch job.

    Raises:
        ModelError: the model cannot be used.
        UsageError: a limit in `options` does not fit the model, or the device is not there.
    """
    options = concrete(options)
    model = read_model(options)
    if patience is not None and isinstance(model, remote.Remote):
        model = replace(model, patience=patience)
    return model.load(options)


def read_model(options: ScorerOptions) -> Model:
    """Read a model's files, every check included; its weights stay on disk.

    Raises:
        ModelError: the model cannot be used.
        UsageError: a limit in `options` does not fit the model.
    """
    return ModelSource(options, shared=False).read(options)


class ModelSource:
    """One model, whose files are read and parsed once for any number of limits and instructions. May be shared.

    Args:
        options: which model. Nothing is read before `read`.
        shared: whether `read` will be called more than once; see `ModelTokenizer`.
        weighed: whether cards are to have a fingerprint; see `ModelFiles`.
    """

    def __init__(self, options: ScorerOptions, *, shared: bool = True, weighed: bool = True) -> None:
        self._options = options
        self._shared = shared
        self._weighed = weighed
        self._lock = threading.Lock()

    def read(self, options: ScorerOptions) -> Model:
        """The model under other options, which name the same one; what tokenises is shared by all that it gives.

        Raises:
            ModelError, UsageError: as `read_model`.
        """
        if options.listwise and not remote.is_url(options.model):
            raise UsageError(
                f"--listwise was given with --model {options.model!r}; it is for http(s):// endpoints. Whether another "
                "model scores lists, its own files say, or the attribute listwise of a python: scorer: leave it out."
            )
        if options.model.startswith(custom.PREFIX):
            return custom.read(options)
        if remote.is_url(options.model):
            return remote.read(options)
        try:
            with self._lock:  # of those that come at once, one reads the files
                location = self._location
                reader = recognise(location.name, location.folder, options)
                files = self._files
            return reader(files, options)
        except OSError as error:
            raise ModelError(f"The files of the model {options.model!r} cannot be read: {error}.") from error

    @cached_property
    def _location(self) -> Location:
        return locate(self._options, lambda name, folder: recognise(name, folder, self._options))

    @cached_property
    def _files(self) -> ModelFiles:
        return read_files(self._location, shared=self._shared, weighed=self._weighed)
