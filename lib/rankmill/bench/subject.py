"""The model that is measured: loaded, with what was chosen for it and why."""

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankmill.errors import ModelError
from rankmill.scoring.block_scorer import BlockScorer
from rankmill.scoring.card import ModelCard
from rankmill.scoring.chunks import score
from rankmill.scoring.embedding_scorer import EmbeddingScorer
from rankmill.scoring.engines.choose import choose, concrete
from rankmill.scoring.families.classifier import Classifier
from rankmill.scoring.files import weight_files
from rankmill.scoring.load import read_model
from rankmill.scoring.model import Model
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.overlap import Pair, ahead, slices
from rankmill.scoring.pair_scorer import PairScorer
from rankmill.scoring.scorer import Scorer
from rankmill.scoring.waste import is_packed, padding_tokens
from rankmill.types import EncodedPairs


@dataclass(frozen=True, slots=True)
class Chosen:
    """How the model is run."""

    engine: str
    device: str
    precision: str
    batch_tokens: int | None
    """Tokens per forward pass at most; None for a scorer that makes its own batches."""
    why: dict[str, str]
    """For each of engine, precision and batch_tokens: one clause for people."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured."""

    options: ScorerOptions
    card: ModelCard
    scorer: Scorer
    first_token: bool = False
    """Whether the engine computes the last layer for the first token alone, as it does where nothing else is read."""

    @property
    def device(self) -> str:
        """`cpu` or `cuda`."""
        if isinstance(self.scorer, BlockScorer):
            return self.scorer.device
        return self.scorer.engine.device if isinstance(self.scorer, PairScorer | EmbeddingScorer) else "cpu"

    @property
    def chosen(self) -> Chosen:
        """How it is run, by now: a batch that did not fit into memory made the later ones smaller."""
        asked, scorer = self.options, self.scorer
        if not isinstance(scorer, PairScorer | EmbeddingScorer):
            engine_name = "torch" if isinstance(scorer, BlockScorer) else self.card.kind
            return Chosen(engine_name, self.device, self.card.precision, None, {})
        engine = scorer.engine
        return Chosen(
            engine=engine.name,
            device=engine.device,
            precision=self.card.precision,
            batch_tokens=scorer.batch_tokens,
            why={
                "engine": self._why_engine(engine.name),
                "precision": _why_precision(asked.precision, engine.device),
                "batch_tokens": _why_batch_tokens(asked.batch_tokens, scorer.batch_tokens, engine.batch_tokens),
            },
        )

    def _why_engine(self, engine: str) -> str:
        from rankmill.scoring.engines.torch_padded import torch_machine  # noqa: PLC0415 - torch takes seconds

        convertible = self.card.kind == "cross-encoder" and not self.options.trust_remote_code
        choice = choose(
            concrete(self.options), torch_machine(), parameters=self.card.parameters, convertible=convertible
        )
        return choice.why if choice.engine == engine else f"{choice.engine} cannot run the model"


def load(options: ScorerOptions) -> Subject:
    """Load it.

    Raises:
        ModelError: the model cannot be used.
        UsageError: an option does not fit the model, or the device is not there.
    """
    settled = concrete(options)
    model = read_model(settled)
    scorer = model.load(settled)
    return Subject(options, model.card(settled.precision), scorer, _first_token(model, scorer))


def _first_token(model: Model, scorer: Scorer) -> bool:
    return isinstance(model, Classifier) and model.family.first_token and not is_packed(scorer)


def score_all(scorer: Scorer, queries: Sequence[str], texts: Sequence[str]) -> NDArray[np.float32]:
    """The bare scorer: texts in, logits out, in one process, tokenising one slice ahead as `rankmill score` does."""

    def encode(pairs: list[Pair]) -> EncodedPairs:
        return scorer.encode(*zip(*pairs, strict=True))

    cut = slices(zip(queries, texts, strict=True), listwise=scorer.listwise)
    with closing(ahead(encode, cut)) as encoded:
        return np.concatenate([score(scorer, part).logits for part in encoded])


@dataclass(frozen=True, slots=True)
class Survey:
    """What the pairs are like for this model."""

    lengths: NDArray[np.int64]
    """Tokens per pair, shape (n,)."""
    passes: NDArray[np.int64]
    """Tokens per row of a forward pass; the same, but for documents in chunks."""
    whole: NDArray[np.bool_]
    """Shape (n,): neither cut nor read in chunks, so that every library reads the same."""
    padding: int | None
    """Tokens of padding in all forward passes; None where the batches are made elsewhere."""


def survey(subject: Subject, queries: Sequence[str], texts: Sequence[str]) -> Survey:
    """Tokenise everything once, and count."""
    parts = [subject.scorer.encode(*zip(*pairs, strict=True)) for pairs in slices(zip(queries, texts, strict=True))]
    rows = [part.rows().lengths for part in parts]
    whole = [~part.truncated if part.chunks is None else ~part.truncated & (part.chunks.counts == 1) for part in parts]
    return Survey(
        lengths=np.concatenate([part.lengths for part in parts]),
        passes=np.concatenate(rows),
        whole=np.concatenate(whole),
        padding=_padding(subject.scorer, rows),
    )


def _padding(scorer: Scorer, rows: list[NDArray[np.int64]]) -> int | None:
    found = [padding_tokens(scorer, lengths) for lengths in rows]
    return None if None in found else sum(count or 0 for count in found)


def plain_folder(subject: Subject, scratch: Path) -> Path:
    """The model's files as other libraries can read them: weights in our own int8 format are written out as float32.

    Args:
        subject: the model.
        scratch: an empty folder, for a copy where one is needed.

    Raises:
        ModelError: it has no files.
    """
    from safetensors.torch import save_file  # noqa: PLC0415 - torch takes seconds

    from rankmill.scoring.int8 import is_int8, load_int8  # noqa: PLC0415

    folder = subject.card.folder
    if folder is None:
        raise ModelError(f"the model {subject.card.model!r} has no files that another library could read")
    weights = weight_files(subject.card.model, folder)
    if not any(map(is_int8, weights)):
        return folder
    for path in folder.iterdir():
        if path.is_file() and path not in weights:
            shutil.copy(path, scratch / path.name)
    for path in weights:
        save_file(load_int8(path), scratch / path.name, metadata={"format": "pt"})
    return scratch


def with_engine(subject: Subject, engine: str, precision: str | None) -> Subject:
    """The same model with another engine, or in another precision."""
    return load(replace(subject.options, engine=engine, precision=precision or concrete(subject.options).precision))


def _why_precision(asked: str, device: str) -> str:
    if asked != "auto":
        return "as asked for"
    return "exact, the choice for a CPU" if device == "cpu" else "the choice for a GPU"


def _why_batch_tokens(asked: int | str | None, used: int, default: int) -> str:
    if asked == "auto":
        return "measured on this machine"
    if used < (asked if isinstance(asked, int) else default):
        return "lowered, for lack of memory"
    return "as asked for" if asked is not None else "the engine's own"
