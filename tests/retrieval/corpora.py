"""Small corpora as files, and an embedder without a model."""

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from rankmill.retrieval.corpus import Corpus
from rankmill.retrieval.manifest import EmbedderInfo, Manifest

DIMENSION = 64
DOCUMENTS: list[dict[str, Any]] = [
    {"_id": "cat", "title": "Cats", "text": "The cat sat on the mat and purred.", "year": 2001},
    {"_id": "dog", "title": "Dogs", "text": "A dog barked at the postman.", "year": 2002},
    {"_id": "pet", "title": "", "text": "Cats and dogs are pets.", "year": None},
    {"_id": "car", "title": "Cars", "text": "Engines need oil; it's a rule.", "year": 2004},
    {"_id": "sea", "title": "Sea", "text": "Waves, salt and wind.", "year": 2005},
]


def write_beir(path: Path, documents: Sequence[dict[str, Any]] = DOCUMENTS) -> Path:
    """Write JSONL as BEIR has it, gzipped where the name says so."""
    data = "".join(json.dumps(document) + "\n" for document in documents).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def numbered(count: int) -> list[dict[str, Any]]:
    """Many documents, each with a word of its own."""
    return [{"_id": f"d{i:04}", "title": "", "text": f"shared word{i:04}", "year": i} for i in range(count)]


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """Bags of words of unit length, by hashing: texts with words in common are alike."""
    vectors = np.zeros((len(texts), DIMENSION), dtype=np.float32)
    for row, text in zip(vectors, texts, strict=True):
        for word in text.lower().replace(".", " ").replace(",", " ").split():
            row[int(hashlib.sha256(word.rstrip("s").encode()).hexdigest(), 16) % DIMENSION] += 1.0
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(norms, 1e-9)
    return unit


def manifest_of(corpus: Corpus, fingerprint: str | None = None) -> Manifest:
    """What an index of `corpus` says, with vectors where there is a fingerprint."""
    info = fingerprint and EmbedderInfo("bag", None, fingerprint, DIMENSION, "float32", 512, 64)
    return Manifest(
        corpus=corpus.uri,
        files=corpus.digest,
        columns=corpus.columns,
        keep=tuple((name, str(corpus.schema.field(name).type)) for name in corpus.schema.names[3:]),
        language="English",
        embedder=info or None,
    )


class StoppingEmbedder:
    """Fails at its `stop`-th batch, as a killed process would end there."""

    def __init__(self, stop: int) -> None:
        self.texts: list[str] = []
        self._left = stop

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1
        self.texts += texts
        return embed(texts)


def filters() -> st.SearchStrategy[str]:
    """Filters of the five documents, NULLs and quotes among them."""
    tests = st.sampled_from(
        [
            "year > 2002",
            "year <= 2004",
            "year = 2002",
            "year != 2004",
            "year in (2001, 2005)",
            "year not in (2001, 2005)",
            "year is null",
            "year is not null",
            "doc_id like 'c%'",
            "doc_id not like '%a%'",
            "title = ''",
            r"""title != 'it''s a "quote" \\ '""",
        ]
    )
    return st.recursive(
        tests,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda three: f"({' '.join(three)})"),
            inner.map(lambda one: f"not ({one})"),
        ),
        max_leaves=5,
    )
