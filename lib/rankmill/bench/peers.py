"""Who else can score the same pairs in this process: other libraries, our other engines, and our engine laid bare.

A peer gives raw logits, in input order. It reads the same model folder, cuts pairs to the same length, and has the same
device and number of threads.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rankmill.bench.onnx import OnnxEngine
from rankmill.bench.subject import Subject, score_all, with_engine
from rankmill.errors import ModelError, UsageError
from rankmill.scoring.options import PRECISIONS
from rankmill.scoring.overlap import slices
from rankmill.scoring.pair_scorer import PairScorer
from rankmill.scoring.scorer import Scorer

Score = Callable[[], NDArray[np.float32]]

_ROWS = 32
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Peer(Protocol):
    """Something that scores pairs."""

    precision: str
    """What it computes in."""

    def prepare(self, queries: Sequence[str], texts: Sequence[str]) -> Score:
        """Do what is not to be timed; the result scores these pairs, again at every call."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A peer that was asked for."""

    name: str
    """One of `PEERS`."""
    precision: str | None
    """None is what we compute in, and sentence-transformers' own choice."""

    def __str__(self) -> str:
        return self.name if self.precision is None else f"{self.name}:{self.precision}"


def parse(against: str) -> list[Wanted]:
    """Read `--against`: names with commas between them, each maybe with a precision, as in `torch:bfloat16`.

    Raises:
        UsageError: an unknown name or precision.
    """
    found = []
    for word in filter(None, map(str.strip, against.split(","))):
        name, _, precision = word.partition(":")
        if name not in PEERS:
            raise UsageError(f"--against {word}: {name} is not a peer; known are {', '.join(PEERS)}.")
        if precision and precision not in set(PRECISIONS) - {"auto"}:
            raise UsageError(f"--against {word}: {precision} is not a precision, such as float32 or bfloat16.")
        if precision and name == "raw":
            raise UsageError(f"--against {word}: raw is our engine as it is; leave out the precision.")
        found.append(Wanted(name, precision or None))
    return list(dict.fromkeys(found))


class Ours:
    """Our scorer with another engine, from texts to logits."""

    def __init__(self, scorer: Scorer, precision: str) -> None:
        self.precision = precision
        self._scorer = scorer

    def prepare(self, queries: Sequence[str], texts: Sequence[str]) -> Score:
        """Nothing is prepared."""
        return partial(score_all, self._scorer, queries, texts)


class Raw:
    """Our engine alone, on pairs that are tokenised and cut into batches beforehand: what is left is our overhead."""

    def __init__(self, subject: Subject) -> None:
        _refuse_chunks(subject)
        if not isinstance(subject.scorer, PairScorer):
            raise ModelError(f"a model of the kind {subject.card.kind} has no batches of pairs to hand over")
        self.precision = subject.card.precision
        self._scorer = subject.scorer

    def prepare(self, queries: Sequence[str], texts: Sequence[str]) -> Score:
        """Tokenise and pack, slice by slice as the scorer does."""
        parts = [self._scorer.encode(*zip(*pairs, strict=True)) for pairs in slices(zip(queries, texts, strict=True))]
        batches = [self._scorer.batches(part.lengths) for part in parts]
        engine = self._scorer.engine

        def score() -> NDArray[np.float32]:
            found = []
            for part, cut in zip(parts, batches, strict=True):
                logits = np.zeros(len(part), dtype=np.float32)
                logits[np.concatenate(cut)] = engine.collect([engine.run(part, rows) for rows in cut])
                found.append(logits)
            return np.concatenate(found)

        return score


class SentenceTransformers:
    """`CrossEncoder.predict` with its defaults, without an activation."""

    def __init__(self, subject: Subject, folder: Path, precision: str | None) -> None:
        _refuse_other_kinds(subject)
        from sentence_transformers import CrossEncoder  # noqa: PLC0415 - not a dependency

        self._model = CrossEncoder(
            str(folder),
            device=subject.device,
            max_length=subject.card.max_length,
            local_files_only=True,
            trust_remote_code=subject.options.trust_remote_code,
            model_kwargs={} if precision is None else {"dtype": _dtype(precision)},
        )
        self.precision = str(next(self._model.parameters()).dtype).removeprefix("torch.")

    def prepare(self, queries: Sequence[str], texts: Sequence[str]) -> Score:
        """Make the list that it takes."""
        pairs = [list(pair) for pair in zip(queries, texts, strict=True)]

        def score() -> NDArray[np.float32]:
            found: NDArray[np.float32] = self._model.predict(
                pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False
            )
            return found

        return score


class Transformers:
    """What one writes by hand: batches of 32 rows in input order, padded by the tokenizer."""

    def __init__(self, subject: Subject, folder: Path, precision: str | None) -> None:
        _refuse_other_kinds(subject)
        self.precision = precision or _own_precision(subject)
        self._device = subject.device
        self._max_length = subject.card.max_length
        self._tokenizer, self._network = load_plain(subject, folder, self.precision)

    def prepare(self, queries: Sequence[str], texts: Sequence[str]) -> Score:
        """Nothing is prepared."""
        return partial(self._score, list(queries), list(texts))

    @torch.inference_mode()
    def _score(self, queries: list[str], texts: list[str]) -> NDArray[np.float32]:
        logits = []
        for start in range(0, len(texts), _ROWS):
            rows = slice(start, start + _ROWS)
            inputs = self._tokenizer(
                queries[rows],
                texts[rows],
                padding=True,
                truncation=True,
                max_length=self._max_length,
                return_tensors="pt",
            ).to(self._device)
            logits.append(self._network(**inputs).logits[:, 0].float())
        found: NDArray[np.float32] = torch.cat(logits).cpu().numpy()
        return found


def build(wanted: Wanted, subject: Subject, folder: Callable[[], Path]) -> Peer:
    """Load a peer.

    Args:
        wanted: which.
        subject: the model that is measured.
        folder: gives the model's files as other libraries can read them.

    Raises:
        Exception: whatever keeps it from running this model.
    """
    return PEERS[wanted.name](subject, folder, wanted.precision)


def _onnxruntime(subject: Subject, folder: Callable[[], Path], precision: str | None) -> Peer:
    """Our tokenising and our batches, its forward pass."""
    _refuse_other_kinds(subject)
    if precision not in {None, "float32"} or subject.device != "cpu":
        raise UsageError("it is measured in float32 on a CPU only")
    if any(importlib.util.find_spec(name) is None for name in ("onnxruntime", "onnx")):
        raise ModelError("not installed: pip install onnxruntime onnx")
    tokenizer, network = load_plain(subject, folder(), "float32", attention="eager")
    engine = OnnxEngine(
        network,
        pad_id=int(tokenizer.pad_token_id or 0),
        segments="token_type_ids" in tokenizer.model_input_names,
        threads=subject.options.threads,
    )
    return Ours(PairScorer(subject.card, subject.scorer, engine, subject.options), "float32")


def _engine(name: str, subject: Subject, _folder: Callable[[], Path], precision: str | None) -> Peer:
    other = with_engine(subject, name, precision)
    return Ours(other.scorer, other.card.precision)


PEERS: dict[str, Callable[[Subject, Callable[[], Path], str | None], Peer]] = {
    "sentence-transformers": lambda subject, folder, precision: SentenceTransformers(subject, folder(), precision),
    "transformers": lambda subject, folder, precision: Transformers(subject, folder(), precision),
    "onnxruntime": _onnxruntime,
    "torch": partial(_engine, "torch"),
    "openvino": partial(_engine, "openvino"),
    "raw": lambda subject, _folder, _precision: Raw(subject),
}


def load_plain(subject: Subject, folder: Path, precision: str, attention: str | None = None) -> tuple[Any, Any]:
    """Tokenizer and classification model, as transformers alone loads them."""
    import transformers  # noqa: PLC0415 - takes seconds

    trust = subject.options.trust_remote_code
    auto_tokenizer: Any = transformers.AutoTokenizer
    auto_model: Any = transformers.AutoModelForSequenceClassification
    tokenizer = auto_tokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust)
    network = auto_model.from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=trust,
        dtype=_dtype(precision),
        attn_implementation=attention,
    )
    return tokenizer, network.eval().to(subject.device)


def _dtype(precision: str) -> torch.dtype:
    if precision not in _DTYPES:
        raise UsageError(f"it does not compute in {precision}")
    return _DTYPES[precision]


def _own_precision(subject: Subject) -> str:
    """Ours, or float32 where ours is none that torch has."""
    return subject.card.precision if subject.card.precision in _DTYPES else "float32"


def _refuse_chunks(subject: Subject) -> None:
    if subject.options.long_documents == "chunk":
        raise UsageError("it does not read documents in chunks")


def _refuse_other_kinds(subject: Subject) -> None:
    _refuse_chunks(subject)
    if subject.card.kind != "cross-encoder":
        raise ModelError(f"it is measured with cross-encoders only, and this model is a {subject.card.kind}")
