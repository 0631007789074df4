"""Measure rankings against judgements: `rankmill evaluate`, as a script for `ray job submit`."""

import sys

from rankmill.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("evaluate", sys.argv[1:], prog="jobs/evaluate.py"))
