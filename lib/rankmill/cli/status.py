"""`rankmill status`."""

import json
import sys
import time
from dataclasses import asdict

from rankmill.batch.recorded import open_output
from rankmill.batch.status import Watcher
from rankmill.settings.output import StatusSettings


def run(settings: StatusSettings) -> int:
    """Say how far a job is, once or until it is done; returns the exit code 0.

    Raises:
        InputError: there is no job.
        StorageError: the store refused or cannot be reached.
    """
    watcher = Watcher(open_output(settings.output, settings.storage))
    while True:
        status = watcher.look()
        sys.stdout.write((json.dumps(asdict(status)) if settings.as_json else status.text()) + "\n")
        sys.stdout.flush()
        if settings.watch is None or status.complete:
            return 0
        time.sleep(settings.watch)
