"""Train a cross-encoder: `rankmill train`, as a script for `ray job submit`."""

import sys

from rankmill.cli.main import run_command

if __name__ == "__main__":
    sys.exit(run_command("train", sys.argv[1:], prog="jobs/train.py"))
