"""Measure a model on collections in BEIR layout: `python jobs/measure.py --help`."""

import logging
import sys

from rankmill.errors import RankmillError
from rankmill.settings.load import load_settings
from rankmill.settings.train import MeasureSettings
from rankmill.training.measure import measure

if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("rankmill").setLevel(logging.INFO)
    try:
        gains = measure(load_settings(MeasureSettings, sys.argv[1:], prog="jobs/measure.py"))
    except RankmillError as error:
        sys.stderr.write(f"jobs/measure.py: {error}\n")
        sys.exit(error.exit_code)
    sys.stdout.write("".join(f"{gain.as_text()}\n" for gain in gains))
