"""nDCG@10 of a model that reranks first-stage runs of collections in BEIR layout, or held-out training lists."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ir_measures
import numpy as np
import torch
from ir_measures import nDCG
from numpy.typing import NDArray
from transformers import PreTrainedModel

from rankmill.training.collections import first_stage_run, read_documents, read_judged, read_run
from rankmill.training.lists import TrainingList
from rankmill.training.model import forward
from rankmill.training.packing import pack_by_length
from rankmill.training.pairs import PairEncoder
from rankmill.training.ticker import ticking


@dataclass(frozen=True, slots=True)
class Figure:
    """nDCG@10 of one collection, before and after reranking."""

    name: str
    queries: int
    pairs: int
    before: float
    """Of the first stage (for held-out lists: of the order in the file)."""
    after: float

    def as_text(self) -> str:
        """One line for people."""
        counts = f"({self.queries:,} queries, {self.pairs:,} pairs)"
        return f"nDCG@10    {self.before:.4f} -> {self.after:.4f}  {self.name} {counts}"


@dataclass(frozen=True, slots=True)
class Scoring:
    """How pairs are scored in an evaluation."""

    max_length: int
    """Most tokens per pair."""
    tokens_per_batch: int
    """Most tokens, padding included, in one forward pass."""
    bf16: bool = False


def score_pairs(
    model: PreTrainedModel,
    encoder: PairEncoder,
    queries: Sequence[str],
    texts: Sequence[str],
    how: Scoring,
    *,
    what: str,
) -> NDArray[np.float32]:
    """Logits of pairs `(queries[i], texts[i])`: shape (n,), float32, input order; distinct texts are tokenised once."""
    distinct = {text: i for i, text in enumerate(dict.fromkeys([*queries, *texts]))}
    tokens = encoder.tokens(list(distinct))
    pairs = [
        encoder.pair(tokens[distinct[q]], tokens[distinct[t]], how.max_length)
        for q, t in zip(queries, texts, strict=True)
    ]
    device = next(model.parameters()).device
    model.train(mode=False)
    out = np.zeros(len(pairs), dtype=np.float32)
    with torch.inference_mode(), ticking(what, len(pairs)) as ticker:
        for batch in pack_by_length([len(ids) for ids, _ in pairs], how.tokens_per_batch):
            out[batch] = forward(model, encoder.pad([pairs[i] for i in batch], device), bf16=how.bf16).cpu().numpy()
            ticker.step(len(batch))
    return out


def evaluate_collection(
    model: PreTrainedModel, encoder: PairEncoder, folder: Path, how: Scoring, *, depth: int = 100
) -> tuple[Figure, dict[str, dict[str, float]]]:
    """Rerank a collection's own run (`run.*.trec`), its first `depth` documents per query.

    Returns:
        The figure over all judged queries, and the reranked run.

    Raises:
        InputError: the folder lacks a file, or holds more than one run.
    """
    texts = {document.doc_id: document.text for document in read_documents(folder)}
    judged = {item.query_id: item for item in read_judged(folder)}
    first = {q: docs[:depth] for q, docs in read_run(first_stage_run(folder)).items() if q in judged}
    pairs = [(q, d) for q, docs in first.items() for d, _ in docs]
    queries, found = [judged[q].query for q, _ in pairs], [texts[d] for _, d in pairs]
    logits = score_pairs(model, encoder, queries, found, how, what=f"reranking {folder.name}")
    after: dict[str, dict[str, float]] = {}
    for (q, d), logit in zip(pairs, logits, strict=True):
        after.setdefault(q, {})[d] = float(logit)
    qrels = {item.query_id: item.grades for item in judged.values()}
    before = {q: dict(docs) for q, docs in first.items()}
    figure = Figure(folder.name, len(qrels), len(pairs), ndcg10(qrels, before), ndcg10(qrels, after))
    return figure, after


def evaluate_lists(model: PreTrainedModel, encoder: PairEncoder, lists: Sequence[TrainingList], how: Scoring) -> Figure:
    """Rerank labelled held-out lists; `before` is the order in which the file has them."""
    labelled = [item for item in lists if any(candidate.label for candidate in item.candidates)]
    queries = [item.query for item in labelled for _ in item.candidates]
    texts = [candidate.text for item in labelled for candidate in item.candidates]
    logits = score_pairs(model, encoder, queries, texts, how, what="held-out lists")
    qrels = {item.query_id: {c.doc_id: round(c.label or 0) for c in item.candidates} for item in labelled}
    offsets = np.cumsum([0, *(len(item.candidates) for item in labelled)])
    after = {
        item.query_id: {c.doc_id: float(logits[offsets[n] + i]) for i, c in enumerate(item.candidates)}
        for n, item in enumerate(labelled)
    }
    before = {item.query_id: {c.doc_id: float(-i) for i, c in enumerate(item.candidates)} for item in labelled}
    return Figure("held-out lists", len(labelled), len(queries), ndcg10(qrels, before), ndcg10(qrels, after))


def ndcg10(qrels: dict[str, dict[str, int]], run: dict[str, dict[str, float]]) -> float:
    """Mean nDCG@10 over the judged queries; a judged query without results counts as 0."""
    return float(ir_measures.calc_aggregate([nDCG @ 10], qrels, run)[nDCG @ 10])
