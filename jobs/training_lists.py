"""Build training lists: queries from collections and docstrings, candidates, teacher scores. See `--help`."""

import logging
import sys

from pydantic_settings import CliApp

from rankmill.errors import RankmillError
from rankmill.settings.train import TrainingListsSettings
from rankmill.training.build import build_training_lists

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        summary = build_training_lists(CliApp.run(TrainingListsSettings))
    except RankmillError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    sys.stdout.write("\n".join(f"{count:>8,} lists  {name}" for name, count in summary.lists.items()))
    sys.stdout.write(f"\n{summary.pairs:>8,} pairs in {summary.path}\n")
