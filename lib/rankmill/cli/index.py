"""`rankmill index`."""

import asyncio
import json
import logging
import sys
import time
from typing import TYPE_CHECKING

from rankmill.retrieval.corpus import Corpus, open_corpus
from rankmill.retrieval.lance_build import Built, build
from rankmill.retrieval.manifest import EmbedderInfo, Manifest
from rankmill.retrieval.milvus_build import build_milvus
from rankmill.retrieval.milvus_client import is_milvus
from rankmill.settings.index import IndexSettings
from rankmill.wording import counted

if TYPE_CHECKING:
    from rankmill.scoring.embedder import Embedder

_log = logging.getLogger("rankmill")


def run(settings: IndexSettings) -> int:
    """Build an index and report; returns the exit code.

    Raises:
        RankmillError: see `rankmill.retrieval.lance_build`; the class says what kind of trouble it is.
    """
    if settings.quiet:
        _log.setLevel(logging.ERROR)
    started = time.monotonic()
    corpus = open_corpus(
        settings.corpus,
        settings.storage,
        doc_id=settings.columns.doc_id,
        title=settings.columns.title,
        text=settings.columns.text,
        keep=settings.keep,
    )
    embedder = _embedder(settings)
    built = _build(settings, corpus, embedder)
    _report(settings, built, time.monotonic() - started)
    return 0


def _build(settings: IndexSettings, corpus: Corpus, embedder: "Embedder | None") -> Built:
    manifest = _manifest(corpus, settings, embedder)
    embed = None if embedder is None else embedder.documents
    batch = settings.batch_documents
    if is_milvus(settings.index):
        return build_milvus(settings.index, corpus, manifest, embed, batch_documents=batch, progress=_progress)
    return asyncio.run(
        build(
            settings.index,
            corpus,
            manifest,
            embed,
            batch_documents=batch,
            storage=settings.storage,
            progress=_progress,
        )
    )


def _progress(documents: int) -> None:
    _log.info("%s documents", f"{documents:,}")


def _embedder(settings: IndexSettings) -> "Embedder | None":
    if settings.model is None:
        return None
    from rankmill.scoring.embedder import load_embedder  # noqa: PLC0415 - torch takes seconds
    from rankmill.scoring.options import ScorerOptions  # noqa: PLC0415

    return load_embedder(
        ScorerOptions(
            model=settings.model,
            revision=settings.revision,
            precision=settings.precision,
            max_length=settings.max_length,
        )
    )


def _manifest(corpus: Corpus, settings: IndexSettings, embedder: "Embedder | None") -> Manifest:
    info = None
    if embedder is not None:
        card = embedder.card
        info = EmbedderInfo(
            model=card.model,
            revision=card.revision,
            fingerprint=card.fingerprint,
            dimension=embedder.dimension,
            precision=card.precision,
            max_length=card.max_length,
            max_query_tokens=card.max_query_tokens,
        )
    return Manifest(
        corpus=corpus.uri,
        files=corpus.digest,
        columns=corpus.columns,
        keep=tuple((name, str(corpus.schema.field(name).type)) for name in settings.keep),
        language=settings.language,
        embedder=info,
    )


def _report(settings: IndexSettings, built: Built, seconds: float) -> None:
    values = {"index": settings.index, "documents": built.documents, "added": built.added, "seconds": seconds}
    if settings.as_json:
        sys.stdout.write(json.dumps(values) + "\n")
    elif not settings.quiet:
        documents = counted(built.documents, "document")
        there = "" if built.added == built.documents else f" ({built.documents - built.added:,} were there already)"
        sys.stdout.write(f"{settings.index} is whole: {documents}{there}, in {seconds:.1f} s\n")
