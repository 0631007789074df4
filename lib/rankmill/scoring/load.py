"""The two ways in: `check_model` (quick, before any accelerator starts) and `load_scorer`."""

from tokenizers import Tokenizer

from rankmill.scoring.card import ModelCard, ModelFiles, read_model
from rankmill.scoring.locate import locate
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.scorer import Scorer
from rankmill.scoring.tokenizer_files import parse_tokenizer, reading_specials_as_text
from rankmill.scoring.tokens import Limits, PairEncoder


def check_model(options: ScorerOptions) -> ModelCard:
    """Say what a model is, or why it cannot be used, without loading torch or the weights.

    A hub id is fetched into the hub's cache and pinned to a commit: `dataclasses.replace(options,
    revision=card.revision)` makes every other machine load the same one.

    Raises:
        ModelError: the model cannot be used.
        UsageError: a limit in `options` does not fit the model.
    """
    return read_model(locate(options), options)[0]


def load_encoder(options: ScorerOptions) -> PairEncoder:
    """Load what tokenises, for processes that never run the network: no torch, a tenth of a scorer's start-up.

    Raises:
        ModelError: the model cannot be used.
        UsageError: a limit in `options` does not fit the model.
    """
    card, files = read_model(locate(options), options)
    return _encoder(card, files)


def load_scorer(options: ScorerOptions) -> Scorer:
    """Load the cross-encoder.

    Raises:
        ModelError: the model cannot be used.
        UsageError: a limit in `options` does not fit the model, or the device is not there.
    """
    from rankmill.scoring.torch_model import load_network  # noqa: PLC0415 - torch takes seconds to import
    from rankmill.scoring.torch_scorer import TorchScorer, choose_device  # noqa: PLC0415

    card, files = read_model(locate(options), options)
    device = choose_device(options)
    network = load_network(card, files, device)
    return TorchScorer(card, _encoder(card, files), network, device, options)


def _encoder(card: ModelCard, files: ModelFiles) -> PairEncoder:
    tokenizer: Tokenizer = parse_tokenizer(card.model, reading_specials_as_text(files.tokenizer_json))
    tokenizer.encode_special_tokens = True
    return PairEncoder(tokenizer, card.template, Limits(card.max_length, card.max_query_tokens))
