"""`rankmill demo`: BM25, the batch job, and what it gained, on the standard library's documentation."""

import json
import shutil
import sys
import time
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rankmill.batch import output
from rankmill.batch.summary import JobSummary
from rankmill.cli.rerank import rerank
from rankmill.demo.collection import CANDIDATES_PER_QUERY, Collection, build
from rankmill.demo.questions import Question, qrels_of
from rankmill.errors import OutputConflictError
from rankmill.evaluation.compare import Comparison, compare
from rankmill.evaluation.evaluate import evaluate
from rankmill.evaluation.measures import parse_measures
from rankmill.evaluation.read import read_results
from rankmill.evaluation.report import summary, table
from rankmill.settings.demo import DemoSettings
from rankmill.settings.rerank import RerankSettings

MEASURES = "nDCG@10 RR@10 P@5 R@100"
_SHOWN = 3  # documents per ranking in the examples


def run(settings: DemoSettings) -> int:
    """Run the demonstration and show what came of it; returns the exit code 0."""
    started = time.monotonic()
    console = Console(highlight=False, quiet=settings.quiet, stderr=settings.as_json)
    collection = build(Path(settings.output))
    console.print(
        f"Corpus: {collection.documents:,} docstrings of Python {sys.version.split()[0]}'s standard library. "
        f"{len(collection.questions)} questions, BM25's best {CANDIDATES_PER_QUERY} each: "
        f"{collection.candidates.num_rows:,} pairs to rerank.",
        soft_wrap=True,
    )
    if collection.dropped:
        console.print(f"Left out, because this Python lacks them: {', '.join(collection.dropped)}.")
    job = reranked(_job(settings, collection), collection.rankings)
    console.print(job.text(), soft_wrap=True)
    comparison = measure(collection)
    console.print(table(comparison))
    for title, question in examples(collection, comparison):
        console.print(_example(title, question, collection))
    console.print("[2] answers the question, [1] helps, [0] is not judged to do either", markup=False)
    console.print(_next_steps(collection, time.monotonic() - started), soft_wrap=True)
    if settings.as_json:
        sys.stdout.write(json.dumps({"evaluation": summary(comparison), "job": json.loads(job.to_json())}) + "\n")
    return 0


def reranked(job: RerankSettings, folder: Path) -> JobSummary:
    """Run the job; a folder left by another one (older weights, another Python's documentation) is made anew.

    Raises:
        RankmillError: as `rankmill.cli.rerank.rerank` does.
    """
    try:
        return rerank(job)
    except OutputConflictError:
        if not (folder / output.JOB).is_file():
            raise  # nothing of ours
        shutil.rmtree(folder)
        return rerank(job)


def measure(collection: Collection) -> Comparison:
    """Compare the reranked run with the first stage."""
    qrels = qrels_of(collection.questions)
    measures = parse_measures(MEASURES)
    before = evaluate(qrels, read_results(str(collection.first_stage)), measures)
    return compare(evaluate(qrels, read_results(str(collection.rankings)), measures), before)


def examples(collection: Collection, comparison: Comparison) -> list[tuple[str, Question]]:
    """Three questions, chosen by nDCG@10 and by nothing else: the most helped, the median, the most hurt."""
    changes = comparison.run.values[0] - comparison.baseline.values[0]
    by_id = {question.query_id: question for question in collection.questions}
    order = sorted(range(len(changes)), key=lambda column: (-changes[column], comparison.run.query_ids[column]))
    chosen = (("Most helped", order[0]), ("In the middle", order[len(order) // 2]), ("Most hurt", order[-1]))
    return [
        (f"{title} (nDCG@10 {changes[column]:+.2f})", by_id[comparison.run.query_ids[column]])
        for title, column in chosen
    ]


def _job(settings: DemoSettings, collection: Collection) -> RerankSettings:
    return RerankSettings(
        input=str(collection.candidates_folder),
        output=str(collection.rankings),
        model=settings.model,
        max_length=settings.max_length,
        workers=settings.workers and (settings.workers, settings.workers),
        max_rejected="0",
        quiet=settings.quiet,
    )


def _example(title: str, question: Question, collection: Collection) -> Table:
    """The first documents before and after, with their grades."""
    shown = Table(
        title=Text(f"{title}: {question.query}", style="bold"), title_justify="left", box=None, pad_edge=False
    )
    for heading in ("BM25", "reranked"):
        shown.add_column(heading, width=38, no_wrap=True)
    candidates = collection.candidates
    before = candidates.filter(pc.equal(candidates.column("query_id"), question.query_id)).column("doc_id")
    rankings = pq.read_table(collection.rankings, filters=[("query_id", "=", question.query_id)]).sort_by("rank")
    columns = zip(before.to_pylist()[:_SHOWN], rankings.column("doc_id").to_pylist()[:_SHOWN], strict=True)
    for number, (first, second) in enumerate(columns, start=1):
        shown.add_row(_graded(number, first, question), _graded(number, second, question))
    return shown


def _graded(number: int, doc_id: str, question: Question) -> Text:
    grade = question.answers.get(doc_id, 0)
    return Text(f"{number}. [{grade}] {doc_id}", style="green" if grade else "")


def _next_steps(collection: Collection, seconds: float) -> str:
    return (
        f"\nAll of it took {seconds:.0f} s. Everything is in {collection.folder}:\n"
        f"  candidates/     {CANDIDATES_PER_QUERY} candidates per question, the job's input\n"
        "  reranked/       the rankings: pyarrow.parquet.read_table reads the folder\n"
        "  bm25.trec, qrels.tsv, corpus.parquet\n"
        "Next, on your own data (Parquet or JSONL with query_id, query, doc_id, text):\n"
        "  rankmill rerank --input YOUR_CANDIDATES --output YOUR_RANKINGS --top-k 10\n"
        f"  rankmill evaluate --qrels {collection.qrels} --run {collection.rankings} "
        f"--baseline {collection.first_stage} --report report.html"
    )
