"""`rankmill bench`: what this machine does with the bare scorer, and what the job around it costs."""

import json
import logging
import sys
from functools import partial

from rich.console import Console

from rankmill.bench.run import run as measure
from rankmill.bench.tables import tables
from rankmill.settings.bench import BenchSettings


def run(settings: BenchSettings) -> int:
    """Measure and show; returns the exit code 0."""
    if settings.quiet:
        logging.getLogger("rankmill").setLevel(logging.ERROR)
    progress = Console(highlight=False, quiet=settings.quiet, stderr=True)
    found = measure(settings, partial(progress.print, soft_wrap=True, markup=False))
    console = Console(highlight=False, quiet=settings.quiet, stderr=settings.as_json)
    for part in tables(found):
        console.print(part, soft_wrap=isinstance(part, str))
    if settings.as_json:
        sys.stdout.write(json.dumps(found.as_json()) + "\n")
    return 0
