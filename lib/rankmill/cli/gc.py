"""`rankmill gc`."""

import json
import sys
from dataclasses import asdict

from rankmill.batch.recorded import job_of, open_output, read
from rankmill.batch.sweep import Swept, leftovers, sweep
from rankmill.settings.output import GcSettings
from rankmill.storage.lease import held
from rankmill.wording import counted


def run(settings: GcSettings) -> int:
    """Delete leftovers and say which; returns the exit code 0.

    Raises:
        InputError: there is no output.
        OutputBusyError: a run is alive.
        StorageError: the store refused or cannot be reached.
    """
    store = open_output(settings.output, settings.storage)
    job_of(store)  # nothing is written, not even a lease, into a folder that is not ours
    if settings.dry_run:
        found = leftovers(read(store))
    else:
        with held(store, settings.storage.lease_seconds) as lease:
            found = sweep(read(store), lease.check)
    sys.stdout.write(json.dumps(asdict(found)) + "\n" if settings.as_json else _text(found))
    return 0


def _text(found: Swept) -> str:
    files = f"{counted(len(found.files), 'file')} of {counted(found.bytes, 'byte')}"
    head = f"{files} {'deleted from' if found.deleted else 'would be deleted from'} {found.output}"
    return "\n".join([head, *(f"  {key}" for key in found.files), *found.damaged]) + "\n"
