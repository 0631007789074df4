"""Build the lists that `jobs/train.py` trains on: `python jobs/training_lists.py --help`."""

import sys

from rankmill.cli.main import Command, run_command

COMMAND = Command(
    "build training lists",
    "rankmill.settings.train:TrainingListsSettings",
    "rankmill.training.command:training_lists_command",
)

if __name__ == "__main__":
    sys.exit(run_command(COMMAND, sys.argv[1:], prog="jobs/training_lists.py"))
