"""Rerank candidates in bulk: `rankmill rerank`, as a script for `ray job submit -- python jobs/rerank.py …`."""

import sys

from rankmill.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("rerank", sys.argv[1:], prog="jobs/rerank.py"))
