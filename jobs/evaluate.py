"""Measure a run against judgements: the same as `rankmill evaluate`.

python jobs/evaluate.py --qrels qrels.tsv --run reranked/ --baseline bm25.trec --report report.html
"""

import sys

from rankmill.errors import RankmillError
from rankmill.evaluation.command import evaluate_command
from rankmill.settings.evaluate import EvaluateSettings
from rankmill.settings.load import load_settings


def main() -> int:
    """Parse the flags, run the command, turn errors into a sentence and an exit code."""
    try:
        return evaluate_command(load_settings(EvaluateSettings, sys.argv[1:], "jobs/evaluate.py"))
    except RankmillError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
