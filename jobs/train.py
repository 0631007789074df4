"""Train a cross-encoder: `python jobs/train.py --help`."""

import logging
import sys

from rankmill.errors import RankmillError
from rankmill.settings.load import load_settings
from rankmill.settings.train import TrainSettings
from rankmill.training.command import train_command

if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("rankmill").setLevel(logging.INFO)
    try:
        sys.exit(train_command(load_settings(TrainSettings, sys.argv[1:], prog="jobs/train.py")))
    except RankmillError as error:
        sys.stderr.write(f"jobs/train.py: {error}\n")
        sys.exit(error.exit_code)
