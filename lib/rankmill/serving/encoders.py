"""Tokenisers of the configured models, and of requests that want shorter texts, chunks or another instruction."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

from rankmill.errors import RankmillError
from rankmill.scoring.load import ModelSource
from rankmill.scoring.model import Encoder, Model
from rankmill.scoring.options import ScorerOptions
from rankmill.serving.backend import ModelInfo
from rankmill.serving.models import refuse_other_files
from rankmill.serving.request import RerankRequest
from rankmill.serving.request_error import Kind, RequestError


@dataclass(frozen=True, slots=True)
class Variant:
    """What a request changes of a model's options; None is nothing."""

    instruction: str | None
    long_documents: str | None
    max_query_tokens: int | None
    max_document_tokens: int | None
    max_pair_tokens: int | None

    @classmethod
    def of(cls, request: RerankRequest, model: ModelInfo) -> "Variant":
        """What is left of a request's wishes when those that change nothing are gone: limits can only be lowered."""
        options, card = model.options, model.card
        most = options.max_document_tokens
        if most is None and (request.long_documents or options.long_documents) == "truncate":
            # the documents of a list have the same limit, whatever their query leaves
            most = card.max_length - card.max_query_tokens if card.listwise else card.max_length
        return cls(
            request.instruction if request.instruction != options.instruction else None,
            request.long_documents if request.long_documents != options.long_documents else None,
            _lower(request.max_query_tokens, card.max_query_tokens),
            _lower(request.max_document_tokens, most),
            _lower(request.max_pair_tokens, card.max_length),
        )

    @property
    def changes(self) -> dict[str, Any]:
        """Fields of `ScorerOptions`."""
        found = {
            "instruction": self.instruction,
            "long_documents": self.long_documents,
            "max_query_tokens": self.max_query_tokens,
            "max_document_tokens": self.max_document_tokens,
            "max_length": self.max_pair_tokens,
        }
        return {name: value for name, value in found.items() if value is not None}


class DeployedFiles:
    """The files of a model on this machine, which may not be those that were deployed; may be shared by threads.

    Args:
        model: as it was deployed.
        shared: see `ModelSource`.
    """

    def __init__(self, model: ModelInfo, *, shared: bool = True) -> None:
        self._model = model
        self._source = ModelSource(model.options, shared=shared, weighed=False)
        self._checked = False
        self._lock = threading.Lock()

    def read(self, options: ScorerOptions) -> Model:
        """The model under other options; see `ModelSource.read`.

        Raises:
            ModelError, UsageError: it cannot be used under these.
        """
        return self._source.read(options)

    def deployed(self) -> Model:
        """The model under its own options, once it is known to be the one that was deployed.

        Raises:
            ModelError: the files cannot be used, or are others, whose tokens would get scores without a complaint.
        """
        model = self._source.read(self._model.options)
        with self._lock:
            card = self._model.card
            if not self._checked and card.token_limit is not None:  # texts have no tokenizer
                refuse_other_files(self._model, model.card(card.precision).inputs, card.inputs)
            self._checked = True
        return model


class Encoders:
    """Loads tokenisers and keeps them; may be called from several threads.

    A model's files are read once more for the first request that changes its options, and kept for all others: variants
    of a model share its vocabulary.

    Args:
        models: each gets a tokeniser of its own, kept for good.
        variants: tokenisers kept beyond those, the last used; also of versions that take over.

    Raises:
        ModelError: a model cannot be used, or has other files here than where it was deployed from.
    """

    def __init__(self, models: list[ModelInfo], variants: int) -> None:
        self._own = {
            model.card.fingerprint: DeployedFiles(model, shared=False).deployed().encoder() for model in models
        }
        self._variants: OrderedDict[tuple[str, Variant], Encoder] = OrderedDict()  # the keys have fingerprints
        self._files: dict[str, DeployedFiles] = {}
        self._most = variants
        self._lock = threading.Lock()
        """Of the two above; nothing is loaded under it."""

    def find(self, model: ModelInfo, request: RerankRequest) -> Encoder:
        """The tokeniser for a request.

        Raises:
            RequestError: INVALID: the model cannot do what the request wants. UNAVAILABLE: the files of this version
                are not here.
        """
        variant = Variant.of(request, model)
        fingerprint = model.card.fingerprint
        if not variant.changes and fingerprint in self._own:
            return self._own[fingerprint]
        key = (fingerprint, variant)
        with self._lock:
            known = self._variants.get(key)
            if known is not None:
                self._variants.move_to_end(key)
                return known
            files = self._files.setdefault(fingerprint, DeployedFiles(model))
        encoder = _load(files, model, variant)
        with self._lock:
            self._files[fingerprint] = files
            self._variants[key] = encoder
            self._variants.move_to_end(key)
            if len(self._variants) > self._most:
                self._variants.popitem(last=False)
                used = {fingerprint for fingerprint, _ in self._variants}
                self._files = {name: files for name, files in self._files.items() if name in used}
        return encoder


def _load(files: DeployedFiles, model: ModelInfo, variant: Variant) -> Encoder:
    try:
        deployed = files.deployed()
    except RankmillError as error:
        raise RequestError(
            Kind.UNAVAILABLE,
            f"The files of {model.name!r} here are not those of the version that runs.",
            retry_after=5.0,
        ) from error
    if not variant.changes:
        return deployed.encoder()
    options = model.options
    if variant.long_documents == "truncate":
        # an overlap means something for chunks only
        options = replace(options, chunk_overlap=None, long_documents="truncate")
    try:
        return files.read(replace(options, **variant.changes)).encoder()
    except RankmillError as error:
        asked = ", ".join(variant.changes)  # the reason itself may quote the instruction
        raise RequestError(
            Kind.INVALID, f"The model {model.name!r} cannot be used with what the request sets: {asked}."
        ) from error


def _lower(asked: int | None, limit: int | None) -> int | None:
    return None if asked is None or (limit is not None and asked >= limit) else asked
