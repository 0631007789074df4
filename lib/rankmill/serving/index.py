"""The index that is served: read and checked before anything starts, opened where it is searched."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankmill.errors import UsageError
from rankmill.retrieval.lance import lance_manifest
from rankmill.retrieval.manifest import EmbedderInfo, refuse_other_model
from rankmill.retrieval.milvus_client import is_milvus
from rankmill.retrieval.open import open_retriever
from rankmill.retrieval.retriever import MODES, Mode, Retriever
from rankmill.scoring.embedder import Embedder, load_embedder
from rankmill.scoring.load import check_model
from rankmill.scoring.options import ScorerOptions
from rankmill.settings.serve import EndpointSettings
from rankmill.settings.storage import StorageSettings


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """Where it is, and what it takes to search it."""

    uri: str
    """Absolute, where it is a path."""
    storage: StorageSettings
    embedder: ScorerOptions | None
    """The model of its vectors; None does full-text search only."""
    columns: tuple[str, ...]
    """That a filter may name."""

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Ways to search it."""
        return MODES if self.embedder is not None else MODES[:1]


def index_of(settings: EndpointSettings) -> IndexInfo | None:
    """Look at the index of the settings; None where they name none. Not to be called on an event loop.

    Raises:
        InputError: there is no index, or it is not whole.
        ModelError: the model that embeds queries cannot be used.
        UsageError: it is not the one that embedded the documents, or a package is not installed.
        StorageError: the store refused or cannot be reached.
    """
    if settings.index is None:
        return None
    if settings.index_replicas > 1 and is_milvus(settings.index) and "://" not in settings.index:
        raise UsageError(
            f"--index-replicas {settings.index_replicas}: only one process can open {settings.index}, which is Milvus "
            "Lite's. Leave it at 1, or build the index in a Milvus server or in LanceDB."
        )
    return asyncio.run(_look(_absolute(settings.index), settings.index_model, settings.storage))


async def open_index(info: IndexInfo) -> Retriever:
    """Open it, and load the model that embeds queries, which takes seconds.

    Raises:
        RankmillError: as `index_of`.
    """
    if info.embedder is None:
        return await open_retriever(info.uri, info.storage)
    embedder = await asyncio.to_thread(load_embedder, info.embedder)
    return await open_retriever(info.uri, info.storage, _OneAtATime(embedder), embedder.card.fingerprint)


async def _look(uri: str, model: str | None, storage: StorageSettings) -> IndexInfo:
    options = None if model is None else ScorerOptions(model=model, precision="float32", device="cpu", threads=1)
    if not is_milvus(uri):
        manifest = await lance_manifest(uri, storage)
        if manifest.embedder is not None:
            options = _options(manifest.embedder, model)
            refuse_other_model(manifest, check_model(options).fingerprint, uri)
    retriever = await open_retriever(uri, storage)
    try:
        return IndexInfo(uri, storage, options, retriever.columns)
    finally:
        retriever.close()


def _options(info: EmbedderInfo, model: str | None) -> ScorerOptions:
    """The model as it embedded the documents; one thread, because a query is short."""
    return ScorerOptions(
        model=model or info.model,
        revision=None if model else info.revision,
        precision=info.precision,
        max_length=info.max_length,
        max_query_tokens=info.max_query_tokens,
        device="cpu",
        threads=1,
    )


def _absolute(uri: str) -> str:
    """The same place from whichever folder a replica runs in."""
    return uri if "://" in uri else str(Path(uri).expanduser().absolute())


class _OneAtATime:
    """Embeds the queries of one search after the other: on one core, side by side would only be slower for all."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._lock = threading.Lock()

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        with self._lock:
            return self._embedder.queries(texts)
