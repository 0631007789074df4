"""Building training lists from collections and docstrings: queries, candidates, teacher scores, splits."""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rankmill.errors import InputError
from rankmill.settings.train import TrainingListsSettings
from rankmill.training.biencoder import BiEncoder
from rankmill.training.collections import Judged, read_documents, read_judged
from rankmill.training.docstrings import Docstring, harvest
from rankmill.training.lists import Candidate, TrainingList, write_lists
from rankmill.training.mining import LexicalIndex, Mix, choose, teacher_scores
from rankmill.training.queries import from_docstring, from_passage
from rankmill.training.ticker import ticking

log = logging.getLogger(__name__)

_LABELLED_MIX = Mix(bm25_top=4, bm25_tail=2, dense_top=2, random=1)
_MADE_MIX = Mix(bm25_top=3, bm25_tail=2, dense_top=3, random=1)
# A query cut out of its own document finds it by the words alone; without that document the list is about meaning.
_SOURCE_LEFT_OUT = 0.3
_MOST_PER_PASSAGE = 3


@dataclass(frozen=True, slots=True)
class _Asked:
    """A query with what is known about the documents of its pool."""

    query_id: str
    query: str
    grades: dict[int, float]
    """Label by position in the pool."""
    excluded: frozenset[int] = frozenset()
    split: str = "train"


@dataclass(frozen=True, slots=True)
class _Pool:
    """Documents that queries of one source choose from."""

    source: str
    doc_ids: list[str]
    texts: list[str]


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """What was built."""

    path: Path
    lists: dict[str, int]
    """Lists by `source/split`."""
    pairs: int


def build_training_lists(settings: TrainingListsSettings) -> BuildSummary:
    """Build and write the lists.

    Raises:
        InputError: no source was given, or one cannot be used.
        ModelError: the bi-encoder cannot be loaded.
    """
    if not (settings.labelled or settings.passages or settings.packages):
        raise InputError("There is nothing to build from; give --labelled, --passages or --packages.")
    encoder = BiEncoder(settings.bi_encoder)
    rng = np.random.default_rng(settings.seed)
    lists: list[TrainingList] = []
    for folder in dict.fromkeys([*settings.labelled, *settings.passages]):
        lists += _from_collection(folder, settings, encoder, rng)
    if settings.packages:
        lists += _from_packages(settings, encoder, rng)
    write_lists(lists, settings.output)
    counts = Counter(f"{item.source}/{item.split}" for item in lists)
    return BuildSummary(settings.output, dict(sorted(counts.items())), sum(len(item.candidates) for item in lists))


def _from_collection(
    folder: Path, settings: TrainingListsSettings, encoder: BiEncoder, rng: np.random.Generator
) -> list[TrainingList]:
    documents = read_documents(folder)
    source = folder.name if len(folder.name) > 2 else f"{folder.parent.name}-{folder.name}"
    pool = _Pool(source, [d.doc_id for d in documents], [d.text for d in documents])
    asked: list[_Asked] = []
    if folder in settings.labelled:
        part = "train" if any(folder.glob("queries.train.jsonl*")) else ""
        asked += _judged(read_judged(folder, part), pool, settings, rng)
    if folder in settings.passages:
        order = np.concatenate([rng.permutation(len(documents)) for _ in range(_MOST_PER_PASSAGE)])
        for number, i in enumerate(order[: settings.passage_queries]):
            made = from_passage(documents[i].title, documents[i].body, rng)
            asked.append(
                _made(
                    f"{source}-made-{number}",
                    made.text,
                    int(i),
                    made.label,
                    rng,
                    may_leave_out=made.kind not in {"title", "title-form"},
                )
            )
    return _score(pool, asked, settings, encoder, rng)


def _judged(
    judged: Sequence[Judged], pool: _Pool, settings: TrainingListsSettings, rng: np.random.Generator
) -> Iterator[_Asked]:
    position = {doc_id: i for i, doc_id in enumerate(pool.doc_ids)}
    dev = _held_out(judged, settings, rng)
    for item in judged:
        grades = {position[doc_id]: float(min(grade, 1)) for doc_id, grade in item.grades.items() if doc_id in position}
        if not any(grades.values()):
            continue
        if item.query_id in dev:
            yield _Asked(f"{pool.source}-{item.query_id}", item.query, grades, split="dev")
            continue
        for copy in range(settings.queries_per_judgement):
            yield _Asked(f"{pool.source}-{item.query_id}-{copy}", item.query, grades)


def _held_out(judged: Sequence[Judged], settings: TrainingListsSettings, rng: np.random.Generator) -> set[str]:
    """Ids of the dev queries: whole groups of documents, drawn until there are enough queries."""
    by_group: dict[str, list[str]] = {}
    for item in judged:
        for doc_id in item.grades:
            match = re.search(settings.dev_groups, doc_id)
            by_group.setdefault(match.group(0) if match else doc_id, []).append(item.query_id)
    groups = sorted(by_group)
    held: set[str] = set()
    for g in rng.permutation(len(groups)):
        if len(held) >= settings.dev_queries:
            break
        held.update(by_group[groups[int(g)]])
    return held


def _from_packages(settings: TrainingListsSettings, encoder: BiEncoder, rng: np.random.Generator) -> list[TrainingList]:
    by_package: dict[str, list[Docstring]] = {}
    for item in harvest(settings.packages):
        by_package.setdefault(item.name.split(".", maxsplit=1)[0], []).append(item)
    kept: list[Docstring] = []
    for items in by_package.values():
        picked = rng.permutation(len(items))[: settings.docstrings_per_package]
        kept += [items[int(i)] for i in np.sort(picked)]
    pool = _Pool("docstrings", [d.name for d in kept], [_docstring_text(d, rng) for d in kept])
    asked = []
    for number, i in enumerate(rng.permutation(len(kept))[: settings.docstring_queries]):
        item = kept[int(i)]
        made = from_docstring(item.name, item.text, item.parameters, rng)
        asked.append(
            _made(
                f"docstrings-made-{number}",
                made.text,
                int(i),
                made.label,
                rng,
                may_leave_out=made.kind not in {"docstring", "name"},
            )
        )
    return _score(pool, asked, settings, encoder, rng)


def _docstring_text(item: Docstring, rng: np.random.Generator) -> str:
    """Name and docstring; one time in four without its first sentence, where a question's words are from."""
    text = item.text
    if rng.random() < 0.25:
        rest = re.split(r"(?<=[.!?])\s|\n\s*\n", text, maxsplit=1)[1:]
        text = rest[0] if rest and len(rest[0].split()) >= 8 else text
    return f"{item.name} {text}"[:4000]


def _made(
    query_id: str, query: str, source: int, label: float, rng: np.random.Generator, *, may_leave_out: bool
) -> _Asked:
    if may_leave_out and rng.random() < _SOURCE_LEFT_OUT:
        return _Asked(query_id, query, {}, frozenset({source}))
    return _Asked(query_id, query, {source: label})


def _score(
    pool: _Pool, asked: Sequence[_Asked], settings: TrainingListsSettings, encoder: BiEncoder, rng: np.random.Generator
) -> list[TrainingList]:
    asked = [item for item in asked if item.query.strip()]
    log.info("%s: %d documents, %d queries", pool.source, len(pool.texts), len(asked))
    texts = encoder.embed(pool.texts)
    queries = encoder.embed([item.query for item in asked])
    index = LexicalIndex(pool.texts)
    lists = []
    with ticking(f"{pool.source}: choosing candidates", len(asked)) as ticker:
        for item, vector in zip(asked, queries, strict=True):
            cosines, fractions = texts @ vector, index.fractions(item.query)
            if item.split == "dev":
                first = np.argsort(-fractions, kind="stable")[: settings.dev_candidates]
                picked = list(dict.fromkeys([*(int(i) for i in first), *item.grades]))
            else:
                mix = _LABELLED_MIX if max(item.grades.values(), default=0) >= 1 else _MADE_MIX
                picked = choose(
                    cosines, fractions, relevant=list(item.grades), excluded=item.excluded, mix=mix, rng=rng
                )
            scores = teacher_scores(cosines[picked], fractions[picked], settings.bm25_weight)
            lists.append(
                TrainingList(
                    item.query_id,
                    item.query,
                    tuple(
                        Candidate(pool.doc_ids[i], pool.texts[i], item.grades.get(i), float(score))
                        for i, score in zip(picked, scores, strict=True)
                    ),
                    item.split,
                    pool.source,
                )
            )
            ticker.step()
    return lists
