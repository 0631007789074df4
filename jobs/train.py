"""Train a cross-encoder. See `--help`."""

import logging
import sys

from pydantic_settings import CliApp

from rankmill.errors import RankmillError
from rankmill.settings.train import TrainSettings
from rankmill.training.train import train

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    settings = CliApp.run(TrainSettings)
    try:
        summary = train(settings)
    except RankmillError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    sys.stdout.write(f"{summary.as_json() if settings.json_summary else summary.as_text()}\n")
