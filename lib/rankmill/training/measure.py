"""What a model is worth: nDCG@10 before and after reranking, with an interval of the gain.

The logits come from the scorer that batch and online use, the figures from what `rankmill evaluate` computes with.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rankmill.errors import InputError
from rankmill.evaluation.compare import compare
from rankmill.evaluation.evaluate import Qrels, evaluate
from rankmill.evaluation.measures import parse_measures
from rankmill.scoring.load import load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.scorer import Scorer
from rankmill.settings.train import MeasureSettings
from rankmill.tables.trec import read_run
from rankmill.training.collections import first_stage_run, read_documents, read_grades, read_queries
from rankmill.training.lists import TrainingList
from rankmill.training.ticker import ticking

log = logging.getLogger(__name__)

T = TypeVar("T")

DEPTH = 100
"""Documents reranked per query, unless said otherwise."""
_MEASURES = parse_measures("nDCG@10")
_PAIRS_PER_CALL = 2_000
_SHOWN = 20  # ids named in one error


@dataclass(frozen=True, slots=True)
class Gain:
    """nDCG@10 of one collection before and after reranking, over all judged queries."""

    name: str
    queries: int
    pairs: int
    before: float
    """Of the first stage (for held-out lists: of the order in the file)."""
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
        InputError: a collection cannot be used.
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


def measure_collection(scorer: Scorer, folder: Path, depth: int = DEPTH) -> Gain:
    """Rerank the first `depth` documents per query of a collection's `run.*.trec`.

    Raises:
        InputError: the folder lacks a file, holds more than one run, or its files do not belong together.
    """
    qrels = read_grades(folder)
    first = best(read_run(str(first_stage_run(folder))), qrels, depth)
    documents = {document.doc_id: document.text for document in read_documents(folder)}
    queries = texts_of_run(folder, "queries", first["query_id"].to_pylist(), read_queries(folder))
    texts = texts_of_run(folder, "documents", first["doc_id"].to_pylist(), documents)
    return _gain(scorer, folder.name, qrels, first, queries, texts)


def measure_lists(scorer: Scorer, lists: Sequence[TrainingList]) -> Gain:
    """Rerank labelled lists; `before` is the order that the file has them in.

    Args:
        scorer: the model.
        lists: at least one, each with a relevant candidate; ids need not be distinct.
    """
    queries = [item.query for item in lists for _ in item.candidates]
    texts = [candidate.text for item in lists for candidate in item.candidates]
    qrels = {
        str(n): {str(i): round(candidate.label or 0) for i, candidate in enumerate(item.candidates)}
        for n, item in enumerate(lists)
    }
    rows = [(query_id, doc_id, -float(doc_id)) for query_id, grades in qrels.items() for doc_id in grades]
    first = pa.table(dict(zip(("query_id", "doc_id", "score"), map(list, zip(*rows, strict=True)), strict=True)))
    return _gain(scorer, "held-out lists", qrels, first, queries, texts)


def has_relevant(item: TrainingList) -> bool:
    """Whether a list has a candidate that counts as relevant in a measure."""
    return any(round(candidate.label or 0) > 0 for candidate in item.candidates)


def best(run: pa.Table, queries: Collection[str], depth: int) -> pa.Table:
    """The first `depth` results of each of `queries`: a query's rows together, in the order that `evaluate` sees.

    Args:
        run: as `rankmill.tables.trec.read_run` returns it.
        queries: ids of the queries to keep.
        depth: rows to keep per query.
    """
    kept = run.filter(pc.is_in(run["query_id"], value_set=pa.array(list(queries), pa.string())))
    codes = np.unique(kept["query_id"].to_numpy(), return_inverse=True)[1]
    order = np.lexsort((kept["rank"].to_numpy(), -kept["score"].to_numpy(), codes))
    places = np.arange(len(order)) - np.searchsorted(codes[order], codes[order])
    return kept.take(order[places < depth])


def mix(
    query_ids: NDArray[np.object_], first: NDArray[np.floating], second: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Sum of the z-scores, per query, of two scorings of the same rows; constant scores count as 0.

    Args:
        query_ids: shape (n,).
        first: scores, shape (n,).
        second: other scores, shape (n,).

    Returns:
        Float64, shape (n,).
    """
    codes = np.unique(query_ids, return_inverse=True)[1]
    rows = np.bincount(codes)
    total = np.zeros(len(codes))
    for scores in (first, second):
        deviation = scores - (np.bincount(codes, scores) / rows)[codes]
        spread = np.sqrt(np.bincount(codes, deviation**2) / rows)[codes]
        total += np.divide(deviation, spread, out=np.zeros(len(codes)), where=spread > 0)
    return total


def _gain(
    scorer: Scorer, name: str, qrels: Qrels, first: pa.Table, queries: Sequence[str], texts: Sequence[str]
) -> Gain:
    """`first`: `query_id, doc_id, score`, maybe `rank`, a query's rows best first; row i is (queries[i], texts[i])."""
    ids = first["query_id"].to_pylist()
    scores, logits = first["score"].to_numpy(), _logits(scorer, name, ids, queries, texts)
    # equal logits keep the order of the first stage, as in the batch job's rankings
    before, after, mixed = (
        evaluate(qrels, first.drop_columns("score").append_column("score", pa.array(values)), _MEASURES)
        for values in (scores, logits, mix(first["query_id"].to_numpy(), scores, logits))
    )
    change = compare(after, before).differences[0]
    return Gain(
        name=name,
        queries=len(qrels),
        pairs=len(logits),
        before=change.baseline,
        after=change.run,
        low=change.low,
        high=change.high,
        mixed=float(mixed.means[0]),
    )


def _logits(
    scorer: Scorer, name: str, ids: Sequence[str], queries: Sequence[str], texts: Sequence[str]
) -> NDArray[np.float32]:
    parts = []
    with ticking(f"reranking {name}", len(queries)) as ticker:
        for part in _calls(ids, listwise=scorer.listwise):
            parts.append(scorer.logits(scorer.encode(queries[part], texts[part])))
            ticker.step(len(parts[-1]))
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.float32)


def _calls(ids: Sequence[str], *, listwise: bool) -> list[slice]:
    """Rows of each call; a scorer of lists gets a query at a time."""
    if listwise:
        ends = accumulate(len(list(rows)) for _, rows in groupby(ids))
        return [slice(start, end) for start, end in pairwise([0, *ends])]
    return [slice(start, start + _PAIRS_PER_CALL) for start in range(0, len(ids), _PAIRS_PER_CALL)]


def texts_of_run(folder: Path, what: str, ids: Sequence[str], texts: Mapping[str, T]) -> list[T]:
    """What stands behind the ids of a run, in its order.

    Args:
        folder: the collection, for the error.
        what: `queries` or `documents`, for the error.
        ids: of the run's rows.
        texts: by id.

    Raises:
        InputError: an id has no text.
    """
    missing = [name for name in dict.fromkeys(ids) if name not in texts]
    if missing:
        raise InputError(
            f"{folder}: {len(missing):,} {what} of its run have no text in it. Do its files belong together?",
            missing[:_SHOWN],
        )
    return [texts[name] for name in ids]
