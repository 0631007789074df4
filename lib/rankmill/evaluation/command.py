"""`rankmill evaluate`: reads, measures, shows."""

import json
import sys

from rich.console import Console

from rankmill.evaluation.compare import Comparison, compare
from rankmill.evaluation.evaluate import Evaluation, evaluate
from rankmill.evaluation.html import page
from rankmill.evaluation.measures import parse_measures
from rankmill.evaluation.read import read_qrels, read_results
from rankmill.evaluation.report import summary, table
from rankmill.settings.evaluate import EvaluateSettings
from rankmill.tables.trec import open_text


def evaluate_command(settings: EvaluateSettings) -> int:
    """Print the table (and the summary) on stdout, write the report; returns the exit code 0.

    Raises:
        UsageError: a measure that does not exist or cannot be computed here.
        InputError: a file that cannot be used.
        StorageError: the file system refused.
    """
    result = measure(settings)
    if settings.report is not None:
        with open_text(settings.report, "w", settings.storage) as handle:
            handle.write(page(result, _title(settings)))
    if not settings.quiet:
        Console(file=sys.stdout, highlight=False).print(table(result))
        if settings.report is not None:
            sys.stderr.write(f"Report: {settings.report}\n")
    if settings.as_json:
        sys.stdout.write(json.dumps(summary(result)) + "\n")
    return 0


def measure(settings: EvaluateSettings) -> Evaluation | Comparison:
    """Read everything that `settings` names and evaluate it. Raises as `evaluate_command`."""
    measures = parse_measures(settings.measures)  # first: a misspelled name should not cost a download
    qrels = read_qrels(settings.qrels, settings.storage)
    run = evaluate(qrels, read_results(settings.run, settings.storage), measures)
    if settings.baseline is None:
        return run
    return compare(run, evaluate(qrels, read_results(settings.baseline, settings.storage), measures))


def _title(settings: EvaluateSettings) -> str:
    return settings.run if settings.baseline is None else f"{settings.run} against {settings.baseline}"
