"""Tokenisers of the configured models, and of requests that want shorter texts, chunks or another instruction."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

from rankmill.errors import RankmillError
from rankmill.scoring.load import ModelSource, load_encoder
from rankmill.scoring.model import Encoder
from rankmill.serving.backend import ModelInfo
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


class Encoders:
    """Loads tokenisers and keeps them; may be called from several threads.

    A model's files are read once more for the first request that changes its options, and kept for all others: variants
    of a model share its vocabulary.

    Args:
        models: each gets a tokeniser of its own, kept for good.
        variants: tokenisers kept beyond those, the last used; also of versions that take over.

    Raises:
        ModelError: a model cannot be used.
    """

    def __init__(self, models: list[ModelInfo], variants: int) -> None:
        self._own = {model.card.fingerprint: load_encoder(model.options) for model in models}
        self._variants: OrderedDict[tuple[str, Variant], Encoder] = OrderedDict()  # the keys have fingerprints
        self._sources: dict[str, ModelSource] = {}
        self._most = variants
        self._lock = threading.Lock()
        """Of the two above; nothing is loaded under it."""

    def find(self, model: ModelInfo, request: RerankRequest) -> Encoder:
        """The tokeniser for a request.

        Raises:
            RequestError: INVALID: the model cannot do what the request wants. UNAVAILABLE: it is a new version, whose
                files are not here.
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
            source = self._sources.setdefault(fingerprint, ModelSource(model.options))
        encoder = _load(source, model, variant)
        with self._lock:
            self._sources[fingerprint] = source
            self._variants[key] = encoder
            self._variants.move_to_end(key)
            if len(self._variants) > self._most:
                self._variants.popitem(last=False)
                used = {fingerprint for fingerprint, _ in self._variants}
                self._sources = {name: source for name, source in self._sources.items() if name in used}
        return encoder


def _load(source: ModelSource, model: ModelInfo, variant: Variant) -> Encoder:
    try:
        options = model.options
        if variant.long_documents == "truncate":
            options = replace(
                options, chunk_overlap=None, long_documents="truncate"
            )  # an overlap means something for chunks only
        return source.read(replace(options, **variant.changes)).encoder()
    except RankmillError as error:
        asked = ", ".join(variant.changes)  # the reason itself may quote the instruction
        if not asked:
            raise RequestError(
                Kind.UNAVAILABLE, f"The new version of {model.name!r} cannot be read here yet.", retry_after=5.0
            ) from error
        raise RequestError(
            Kind.INVALID, f"The model {model.name!r} cannot be used with what the request sets: {asked}."
        ) from error


def _lower(asked: int | None, limit: int | None) -> int | None:
    return None if asked is None or (limit is not None and asked >= limit) else asked
