"""Scores a run against judgements.

What missing means, here and nowhere else:

* a query with judgements but without results scores 0 in every measure, counts in the means, and is reported
  (as `trec_eval -c` does): leaving a hard query out cannot raise a mean;
* a query with results but without judgements says nothing; it is left out and reported;
* a document without a judgement is not relevant;
* a document that a ranking holds twice counts once, at its better place, those below move up, and it is reported;
* ids are compared as strings, so that 7 in one file is "7" in the other.

The order of a ranking is that of the run's scores, descending; equal scores follow the run's ranks where it has them,
then its order. (trec_eval puts equal scores in descending order of document ids instead, which no ranker meant.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ir_measures
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rankmill.errors import InputError
from rankmill.evaluation.measures import Measure

Qrels = Mapping[str, Mapping[str, int]]
"""Relevance by query id and document id; above 0 is relevant."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Values of measures for every judged query."""

    measures: tuple[str, ...]
    query_ids: tuple[str, ...]
    """Judged queries, in the order of the judgements."""
    values: NDArray[np.float64]
    """Shape (measures, queries)."""
    without_results: tuple[str, ...]
    """Judged queries that the run does not hold; they score 0."""
    without_judgements: tuple[str, ...]
    """Queries of the run that are not judged; they are left out."""
    repeated: int = 0
    """Results left out because the same document stands higher in the same ranking."""

    @property
    def means(self) -> NDArray[np.float64]:
        """Mean over the judged queries, shape (measures,)."""
        return np.asarray(self.values.mean(axis=1), dtype=np.float64)


def evaluate(qrels: Qrels, run: pa.Table, measures: Sequence[Measure]) -> Evaluation:
    """Compute every measure for every judged query.

    Args:
        qrels: judgements; at least one query.
        run: `query_id`, `doc_id`, `score` (finite), optional `rank` (1 is best); rows in any order.
        measures: from `parse_measures`.

    Raises:
        InputError: no judgements, no query in common, or scores that are not finite.
    """
    if not qrels:
        raise InputError("There are no judgements; evaluation needs at least one judged query.")
    ordered = _in_ranking_order(run)
    run_queries = tuple(pc.unique(ordered["query_id"]).to_pylist())
    judged = frozenset(qrels)
    without_judgements = tuple(query for query in run_queries if query not in judged)
    if len(without_judgements) == len(run_queries):
        raise InputError(
            f"The run and the judgements have no query in common: the run has {_some(run_queries)}, "
            f"the judgements have {_some(tuple(qrels))}. Do they belong to the same collection?"
        )
    counted = ordered.filter(pc.is_in(ordered["query_id"], value_set=pa.array(list(qrels), pa.string())))
    rankings = _rankings(counted)
    return Evaluation(
        measures=tuple(measure.name for measure in measures),
        query_ids=tuple(qrels),
        values=_values(qrels, rankings, measures),
        without_results=tuple(query for query in qrels if query not in rankings),
        without_judgements=without_judgements,
        repeated=counted.num_rows - sum(map(len, rankings.values())),
    )


def _values(
    qrels: Qrels, rankings: Mapping[str, Mapping[str, float]], measures: Sequence[Measure]
) -> NDArray[np.float64]:
    """Shape (measures, queries). `ir_measures` gets numbers for ids: some tools behind it take no others."""
    columns = {query_id: column for column, query_id in enumerate(qrels)}
    numbers: dict[str, str] = {}
    numbered_qrels = {
        str(columns[query_id]): {_number(numbers, doc_id): grade for doc_id, grade in grades.items()}
        for query_id, grades in qrels.items()
    }
    numbered_rankings = {
        str(columns[query_id]): {_number(numbers, doc_id): score for doc_id, score in ranking.items()}
        for query_id, ranking in rankings.items()
    }
    rows = {measure.definition: row for row, measure in enumerate(measures)}
    values = np.zeros((len(measures), len(columns)))
    for metric in ir_measures.iter_calc(list(rows), numbered_qrels, numbered_rankings):
        values[rows[metric.measure], int(metric.query_id)] = metric.value
    return values


def _number(numbers: dict[str, str], doc_id: str) -> str:
    return numbers.setdefault(doc_id, str(len(numbers)))


def _in_ranking_order(run: pa.Table) -> pa.Table:
    """`query_id`, `doc_id` as strings; each query's rows best first."""
    scores = run["score"].to_numpy().astype(np.float64)
    if not np.isfinite(scores).all():
        raise InputError(f"{np.count_nonzero(~np.isfinite(scores)):,} scores of the run are not finite numbers.")
    ranks = run["rank"].to_numpy() if "rank" in run.column_names else np.zeros(len(scores), np.int32)
    ids = pa.table({name: pc.cast(run[name], pa.string()) for name in ("query_id", "doc_id")})
    return ids.take(np.lexsort((ranks, -scores)))  # stable: what is equal in both stays in the run's order


def _rankings(ordered: pa.Table) -> dict[str, dict[str, float]]:
    """Documents by query with strictly falling scores, so that every tool behind `ir_measures` keeps our order."""
    rankings: dict[str, dict[str, float]] = {}
    for query_id, doc_id in zip(ordered["query_id"].to_pylist(), ordered["doc_id"].to_pylist(), strict=True):
        ranking = rankings.setdefault(query_id, {})
        ranking.setdefault(doc_id, -float(len(ranking)))
    return rankings


def _some(ids: Sequence[str]) -> str:
    shown = ", ".join(repr(value) for value in ids[:3])
    return f"{shown}, … ({len(ids):,})" if len(ids) > 3 else shown or "none"
