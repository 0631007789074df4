"""Reading collections in BEIR layout: corpus.jsonl, queries[.train].jsonl, qrels[.train].tsv, each plain or .gz."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rankmill.errors import InputError


@dataclass(frozen=True, slots=True)
class Document:
    """One text of a collection."""

    doc_id: str
    title: str
    body: str

    @property
    def text(self) -> str:
        """Title and body as a model sees them."""
        return f"{self.title} {self.body}" if self.title else self.body


@dataclass(frozen=True, slots=True)
class Judged:
    """A query with the grades of its documents."""

    query_id: str
    query: str
    grades: dict[str, int]


def read_documents(folder: Path) -> list[Document]:
    """The corpus of a collection, in file order.

    Raises:
        InputError: no `corpus.jsonl[.gz]` in the folder.
    """
    rows = _json_lines(_existing(folder, "corpus.jsonl"))
    return [Document(str(row["_id"]), str(row.get("title") or ""), str(row.get("text") or "")) for row in rows]


def read_judged(folder: Path, part: str = "") -> list[Judged]:
    """Queries that have judgements.

    Args:
        folder: the collection.
        part: `train` reads `queries.train.jsonl` and `qrels.train.tsv`; empty reads the files without an infix.

    Raises:
        InputError: a file is missing.
    """
    infix = f".{part}" if part else ""
    grades: dict[str, dict[str, int]] = {}
    lines = _lines(_existing(folder, f"qrels{infix}.tsv"))
    next(lines, None)  # the header
    for line in lines:
        query_id, doc_id, grade = line.rstrip("\n").split("\t")
        grades.setdefault(query_id, {})[doc_id] = int(grade)
    rows = _json_lines(_existing(folder, f"queries{infix}.jsonl"))
    return [
        Judged(str(row["_id"]), str(row["text"]), grades[str(row["_id"])]) for row in rows if str(row["_id"]) in grades
    ]


def read_run(path: Path) -> dict[str, list[tuple[str, float]]]:
    """A TREC run: for each query its documents with scores, best first as written."""
    found: dict[str, list[tuple[str, float]]] = {}
    for line in _lines(path):
        query_id, _, doc_id, _, score, *_ = line.split()
        found.setdefault(query_id, []).append((doc_id, float(score)))
    return found


def first_stage_run(folder: Path) -> Path:
    """The one `run.*.trec[.gz]` of a collection.

    Raises:
        InputError: there is none, or more than one.
    """
    runs = sorted([*folder.glob("run.*.trec"), *folder.glob("run.*.trec.gz")])
    if len(runs) != 1:
        raise InputError(
            f"{folder} holds {len(runs)} files named run.*.trec[.gz]; an evaluation collection needs exactly one.",
            [p.name for p in runs],
        )
    return runs[0]


def _existing(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise InputError(f"{folder} holds neither {name} nor {name}.gz, which a collection in BEIR layout has.")


def _lines(path: Path) -> Iterator[str]:
    if path.suffix == ".gz":
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            yield from stream
    else:
        with path.open(encoding="utf-8") as stream:
            yield from stream


def _json_lines(path: Path) -> Iterator[dict[str, object]]:
    return (json.loads(line) for line in _lines(path) if line.strip())
