"""Build the lists that `jobs/train.py` trains on: `python jobs/training_lists.py --help`."""

import logging
import sys

from rankmill.errors import RankmillError
from rankmill.settings.load import load_settings
from rankmill.settings.train import TrainingListsSettings
from rankmill.training.command import training_lists_command

if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("rankmill").setLevel(logging.INFO)
    try:
        sys.exit(
            training_lists_command(load_settings(TrainingListsSettings, sys.argv[1:], prog="jobs/training_lists.py"))
        )
    except RankmillError as error:
        sys.stderr.write(f"jobs/training_lists.py: {error}\n")
        sys.exit(error.exit_code)
