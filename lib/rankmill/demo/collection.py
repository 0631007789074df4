"""Writes the demonstration's collection to a folder: corpus, questions, judgements, first-stage run, candidates."""

import io
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rankmill.demo.corpus import corpus
from rankmill.demo.questions import Question, check_questions, read_questions
from rankmill.errors import OutputConflictError
from rankmill.retrieval.bm25 import retrieve
from rankmill.tables.trec import write_run

CANDIDATES_PER_QUERY = 100
_FILES = 4  # a small folder of shards, as real candidates come
_OURS = ("candidates", "corpus.parquet", "qrels.tsv", "bm25.trec", "reranked", "report.html")


@dataclass(frozen=True, slots=True)
class Collection:
    """Where the parts of the demonstration are, and what they hold."""

    folder: Path
    questions: tuple[Question, ...]
    dropped: tuple[str, ...]
    """Judgements and questions left out because this Python lacks the object."""
    documents: int
    candidates: pa.Table

    @property
    def candidates_folder(self) -> Path:
        """Input of the batch job."""
        return self.folder / "candidates"

    @property
    def qrels(self) -> Path:
        """Judgements, BEIR TSV."""
        return self.folder / "qrels.tsv"

    @property
    def first_stage(self) -> Path:
        """BM25's run, TREC format."""
        return self.folder / "bm25.trec"

    @property
    def rankings(self) -> Path:
        """Output of the batch job."""
        return self.folder / "reranked"


def build(folder: Path) -> Collection:
    """Make the collection, or find the same one there: files that would not change are not touched.

    Raises:
        OutputConflictError: the folder holds something that is not the demonstration's.
    """
    strangers = sorted(path.name for path in folder.iterdir() if path.name not in _OURS) if folder.exists() else []
    if strangers:
        raise OutputConflictError(f"{folder} holds other files ({', '.join(strangers[:5])}); give another --output.")
    documents = corpus()
    checked = check_questions(read_questions(), documents.column("doc_id").to_pylist())
    ids = [question.query_id for question in checked.questions]
    queries = pa.table({"query_id": ids, "query": [question.query for question in checked.questions]})
    candidates = retrieve(queries, documents, CANDIDATES_PER_QUERY)
    made = Collection(
        folder=folder,
        questions=checked.questions,
        dropped=tuple(f"{query}: {doc}" for query, doc in checked.dropped_answers) + checked.dropped_questions,
        documents=documents.num_rows,
        candidates=candidates,
    )
    _write(folder / "corpus.parquet", _parquet(documents))
    _write(made.qrels, _qrels(checked.questions))
    _write(made.first_stage, _run(candidates))
    for number, part in enumerate(_split(candidates, _FILES)):
        _write(made.candidates_folder / f"part-{number}.parquet", _parquet(part))
    return made


def _write(path: Path, body: bytes) -> None:
    if not path.exists() or path.read_bytes() != body:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _qrels(questions: tuple[Question, ...]) -> bytes:
    lines = [f"{q.query_id}\t{doc_id}\t{grade}\n" for q in questions for doc_id, grade in q.answers.items()]
    return ("query-id\tcorpus-id\tscore\n" + "".join(lines)).encode()


def _run(candidates: pa.Table) -> bytes:
    ranks: list[int] = []
    previous = None
    for query_id in candidates.column("query_id").to_pylist():
        ranks.append(1 if query_id != previous else ranks[-1] + 1)
        previous = query_id
    table = candidates.select(["query_id", "doc_id"])
    table = table.append_column("rank", pa.array(ranks, pa.int32()))
    text = io.StringIO()
    write_run(text, table.append_column("score", candidates.column("retrieval_score")), tag="bm25")
    return text.getvalue().encode()


def _split(candidates: pa.Table, files: int) -> list[pa.Table]:
    """Cut into files of whole queries."""
    ids = candidates.column("query_id").to_pylist()
    starts = [row for row, query_id in enumerate(ids) if row == 0 or ids[row - 1] != query_id]
    bounds = [starts[len(starts) * number // files] for number in range(files)] + [len(ids)]
    return [candidates.slice(low, high - low) for low, high in pairwise(bounds)]
