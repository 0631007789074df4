"""Write collections in BEIR layout as candidates: `python jobs/candidates.py --help`."""

import sys

from rankmill.cli.main import Command, run_command

COMMAND = Command(
    "write collections in BEIR layout as candidates",
    "rankmill.settings.train:CandidatesSettings",
    "rankmill.training.command:candidates_command",
)

if __name__ == "__main__":
    sys.exit(run_command(COMMAND, sys.argv[1:], prog="jobs/candidates.py"))
