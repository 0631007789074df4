"""Measure a model on collections in BEIR layout: `python jobs/measure.py --help`."""

import sys

from rankmill.cli.main import Command, run_command

COMMAND = Command(
    "measure a model on collections in BEIR layout",
    "rankmill.settings.train:MeasureSettings",
    "rankmill.training.command:measure_command",
)

if __name__ == "__main__":
    sys.exit(run_command(COMMAND, sys.argv[1:], prog="jobs/measure.py"))
