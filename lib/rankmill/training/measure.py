"""What a model is worth on collections in BEIR layout: nDCG@10 before and after, with an interval of the gain.

Unlike the evaluation at the end of training, this goes through the scorer that batch and online use.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ir_measures
import numpy as np
from ir_measures import nDCG
from numpy.typing import NDArray

from rankmill.scoring.load import load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.scorer import Scorer
from rankmill.settings.train import MeasureSettings
from rankmill.training.collections import first_stage_run, read_documents, read_judged, read_run
from rankmill.training.ticker import ticking

log = logging.getLogger(__name__)

Run = dict[str, dict[str, float]]
_PAIRS_PER_CALL = 2_000
_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Gain:
    """nDCG@10 of one collection before and after reranking, over all judged queries."""

    name: str
    queries: int
    pairs: int
    before: float
    after: float
    low: float
    """Lower end of the 95 % interval of the mean gain (bootstrap over queries, seeded)."""
    high: float
    mixed: float
    """Of the sum of both z-scores per query, reranked and first stage."""

    def as_text(self) -> str:
        """One line for people."""
        return (
            f"{self.name}: {self.before:.4f} -> {self.after:.4f} (gain {self.after - self.before:+.4f}, "
            f"95 % {self.low:+.4f} to {self.high:+.4f}; mixed with the first stage {self.mixed:.4f}; "
            f"{self.queries:,} queries, {self.pairs:,} pairs)"
        )


def measure(settings: MeasureSettings) -> list[Gain]:
    """Rerank every collection's own run with one model.

    Raises:
        ModelError: the model cannot be used.
        InputError: a collection lacks a file.
    """
    options = ScorerOptions(
        model=settings.model, max_length=settings.max_length, precision=settings.precision, threads=settings.threads
    )
    scorer = load_scorer(options)
    gains = []
    for folder in settings.collections:
        gains.append(measure_collection(scorer, folder, settings.depth))
        log.info(gains[-1].as_text())
    return gains


def measure_collection(scorer: Scorer, folder: Path, depth: int) -> Gain:
    """Rerank the first `depth` documents per query of a collection's `run.*.trec`.

    Raises:
        InputError: the folder lacks a file, or holds more than one run.
    """
    texts = {document.doc_id: document.text for document in read_documents(folder)}
    judged = {item.query_id: item for item in read_judged(folder)}
    qrels = {query_id: item.grades for query_id, item in judged.items()}
    before = {q: dict(docs[:depth]) for q, docs in read_run(first_stage_run(folder)).items() if q in judged}
    pairs = [(q, d) for q, docs in before.items() for d in docs]
    after: Run = {}
    with ticking(f"reranking {folder.name}", len(pairs)) as ticker:
        for start in range(0, len(pairs), _PAIRS_PER_CALL):
            part = pairs[start : start + _PAIRS_PER_CALL]
            logits = scorer.logits(scorer.encode([judged[q].query for q, _ in part], [texts[d] for _, d in part]))
            for (q, d), logit in zip(part, logits, strict=True):
                after.setdefault(q, {})[d] = float(logit)
            ticker.step(len(part))
    gained = per_query(qrels, after) - per_query(qrels, before)
    low, high = bootstrap_interval(gained)
    return Gain(
        name=folder.name,
        queries=len(qrels),
        pairs=len(pairs),
        before=float(per_query(qrels, before).mean()),
        after=float(per_query(qrels, after).mean()),
        low=low,
        high=high,
        mixed=float(per_query(qrels, {q: mix(before[q], after[q]) for q in before}).mean()),
    )


def per_query(qrels: dict[str, dict[str, int]], run: Run) -> NDArray[np.float64]:
    """nDCG@10 of every judged query, in the order of `qrels`: shape (queries,); 0 where the run has nothing."""
    found = {metric.query_id: metric.value for metric in ir_measures.iter_calc([nDCG @ 10], qrels, run)}
    return np.array([found.get(query_id, 0.0) for query_id in qrels])


def bootstrap_interval(values: NDArray[np.float64], *, seed: int = 0) -> tuple[float, float]:
    """The 2.5 % and 97.5 % points of the mean of resampled values."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), size=(_RESAMPLES, len(values)))].mean(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def mix(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """Sum of the z-scores of two scorings of the same documents; constant scores count as 0."""
    documents = list(first)
    total = np.zeros(len(documents))
    for scores in (first, second):
        values = np.array([scores[d] for d in documents])
        spread = values.std()
        total += (values - values.mean()) / spread if spread > 0 else 0.0
    return dict(zip(documents, map(float, total), strict=True))
