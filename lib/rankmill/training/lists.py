"""Training lists: one query with its candidates, their labels and teacher scores; how they are read and written.

Two layouts are accepted, told apart by their columns:

* *pairs*: one row per pair: `query_id, query, doc_id, text`, and optional `label`, `teacher`, `split`;
* *nested*: one row per query: `query_id, query, candidates: list<struct<doc_id, text, label?, teacher?>>` and
  optional `split`.

`label` (float, nullable) is a relevance grade, 0 = known irrelevant, null = not judged; `teacher` (float, nullable) is
a soft score on any scale; `split` is `train` (the default) or `dev`. A list needs two candidates, and a teacher score
on every candidate or a label on at least one.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from rankmill.errors import InputError

_PAIR_COLUMNS = ("query_id", "query", "doc_id", "text")
_CANDIDATE = pa.struct(
    [("doc_id", pa.string()), ("text", pa.large_string()), ("label", pa.float32()), ("teacher", pa.float32())],
)
SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("query", pa.string()),
        ("split", pa.string()),
        ("source", pa.string()),
        ("candidates", pa.list_(_CANDIDATE)),
    ],
)
"""Of the files that `write_lists` makes."""
_SHOWN = 20  # problems named in one error


@dataclass(frozen=True, slots=True)
class Candidate:
    """One document of a training list."""

    doc_id: str
    text: str
    label: float | None = None
    """Relevance grade; None means not judged."""
    teacher: float | None = None
    """Soft score of the teacher, on its own scale."""


@dataclass(frozen=True, slots=True)
class TrainingList:
    """One query with its candidates."""

    query_id: str
    query: str
    candidates: tuple[Candidate, ...]
    split: str = "train"
    source: str = ""
    """Where the query came from, for reports only."""


def targets(items: TrainingList, label_bonus: float) -> list[float]:
    """What the model should learn to say about each candidate: the teacher's score plus a bonus for labelled relevance.

    Without teacher scores the label itself is the target and unjudged candidates count as irrelevant.

    Args:
        items: one list.
        label_bonus: added to the teacher's score, times the label. Ignored without teacher scores.

    Returns:
        One number per candidate, on the teacher's scale (or the labels').
    """
    if any(candidate.teacher is None for candidate in items.candidates):
        return [candidate.label or 0.0 for candidate in items.candidates]
    return [(candidate.teacher or 0.0) + label_bonus * (candidate.label or 0.0) for candidate in items.candidates]


def problem_with(items: TrainingList) -> str | None:
    """What makes a list useless for training, as a phrase; None when nothing does."""
    if not items.query.strip():
        return "the query is empty"
    if len(items.candidates) < 2:
        return f"it has {len(items.candidates)} candidate, and a list needs two"
    if items.split not in {"train", "dev"}:
        return f"its split is {items.split!r}; known are 'train' and 'dev'"
    numbers = [
        (c.doc_id, name, value)
        for c in items.candidates
        for name, value in (("label", c.label), ("teacher", c.teacher))
    ]
    if wrong := next(
        ((d, name, value) for d, name, value in numbers if value is not None and not math.isfinite(value)), None
    ):
        return f"the {wrong[1]} of document {wrong[0]!r} is {wrong[2]}"
    return _teaching_problem(items)


def _teaching_problem(items: TrainingList) -> str | None:
    scored = sum(candidate.teacher is not None for candidate in items.candidates)
    if 0 < scored < len(items.candidates):
        return f"{scored} of {len(items.candidates)} candidates have a teacher score; give it to all or to none"
    if scored == 0 and not any(candidate.label for candidate in items.candidates):
        return "it has neither teacher scores nor a label above 0, so there is nothing to learn"
    return None


def read_lists(paths: Sequence[Path]) -> list[TrainingList]:
    """Read Parquet files or folders of them, either layout.

    Returns:
        The lists in file order; pairs of one query need not be contiguous.

    Raises:
        InputError: a path is missing, columns are missing, or lists are unusable; names every culprit (the first 20).
    """
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise InputError("Training input does not exist; check --input.", missing)
    found = [item for path in paths for item in _read(path)]
    if not found:
        raise InputError("The training input has no rows.", [str(path) for path in paths])
    problems = [f"query {item.query_id!r}: {problem}" for item in found if (problem := problem_with(item))]
    if problems:
        more = f" The first {_SHOWN}:" if len(problems) > _SHOWN else ""
        raise InputError(f"{len(problems)} of {len(found)} training lists cannot be used.{more}", problems[:_SHOWN])
    return found


def write_lists(lists: Iterable[TrainingList], path: Path) -> int:
    """Write lists as one nested Parquet file (zstd).

    Returns:
        How many were written.
    """
    rows = [
        {
            "query_id": item.query_id, "query": item.query, "split": item.split, "source": item.source,
            "candidates": [asdict(candidate) for candidate in item.candidates],
        }
        for item in lists
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path, compression="zstd")
    return len(rows)


def _read(path: Path) -> list[TrainingList]:
    try:
        table = ds.dataset(path, format="parquet").to_table()
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"Cannot read {path} as Parquet: {str(error).splitlines()[0]}") from error
    names = set(table.column_names)
    if "candidates" in names:
        _require(path, names, ("query_id", "query"))
        return [_list_of(row, row["candidates"] or []) for row in table.to_pylist()]
    _require(path, names, _PAIR_COLUMNS)
    grouped: dict[str, list[dict[str, object]]] = {}
    for row in table.to_pylist():
        grouped.setdefault(str(row["query_id"]), []).append(row)
    return [_list_of(rows[0], rows) for rows in grouped.values()]


def _require(path: Path, names: set[str], wanted: Sequence[str]) -> None:
    missing = [
        f"{path}: no column {name!r} (it has {', '.join(sorted(names))})" for name in wanted if name not in names
    ]
    if missing:
        raise InputError("A training file lacks columns.", missing)


def _list_of(row: dict[str, object], candidates: Sequence[dict[str, object]]) -> TrainingList:
    return TrainingList(
        query_id=str(row["query_id"]),
        query=str(row["query"] or ""),
        candidates=tuple(
            Candidate(
                str(c.get("doc_id")), str(c.get("text") or ""), _number(c.get("label")), _number(c.get("teacher"))
            )
            for c in candidates
        ),
        split=str(row.get("split") or "train"),
        source=str(row.get("source") or ""),
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
