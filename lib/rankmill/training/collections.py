"""Reading collections in BEIR layout: corpus.jsonl, queries[.train].jsonl, qrels[.train].tsv, each plain or .gz."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rankmill.errors import InputError
from rankmill.evaluation.read import read_qrels
from rankmill.tables.trec import open_text


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


def read_queries(folder: Path, part: str = "") -> dict[str, str]:
    """Texts by query id, in file order.

    Args:
        folder: the collection.
        part: `train` reads `queries.train.jsonl`; empty reads the file without an infix.

    Raises:
        InputError: the file is missing.
    """
    rows = _json_lines(_existing(folder, f"queries{_infix(part)}.jsonl"))
    return {str(row["_id"]): str(row["text"]) for row in rows}


def read_grades(folder: Path, part: str = "") -> dict[str, dict[str, int]]:
    """Grades by query id and document id, in file order; `part` as in `read_queries`.

    Raises:
        InputError: the file is missing or cannot be used.
    """
    return read_qrels(str(_existing(folder, f"qrels{_infix(part)}.tsv")))


def read_judged(folder: Path, part: str = "") -> list[Judged]:
    """Queries that have judgements, in the order of the queries; `part` as in `read_queries`.

    Raises:
        InputError: a file is missing or cannot be used.
    """
    grades = read_grades(folder, part)
    return [Judged(name, text, grades[name]) for name, text in read_queries(folder, part).items() if name in grades]


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


def _infix(part: str) -> str:
    return f".{part}" if part else ""


def _json_lines(path: Path) -> Iterator[dict[str, object]]:
    with open_text(str(path)) as lines:
        yield from (json.loads(line) for line in lines if line.strip())
