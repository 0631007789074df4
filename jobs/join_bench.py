"""Measure joins of a run with its texts: `python jobs/join_bench.py --help`."""

import sys

from rankmill.cli.main import Command, run_command

COMMAND = Command(
    "join generated tables, with our join and with Ray Data's",
    "rankmill.settings.join_bench:JoinBenchSettings",
    "rankmill.bench.join:run",
)

if __name__ == "__main__":
    sys.exit(run_command(COMMAND, sys.argv[1:], prog="jobs/join_bench.py"))
