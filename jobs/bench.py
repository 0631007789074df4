"""Measure this machine: `rankmill bench`, as a script for `ray job submit -- python jobs/bench.py …`."""

import sys

from rankmill.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("bench", sys.argv[1:], prog="jobs/bench.py"))
