"""`rankmill verify`."""

import json
import sys
from dataclasses import asdict

from rankmill.batch.recorded import open_output, read
from rankmill.batch.summary import unverified_inputs
from rankmill.batch.verify import Verified, verify
from rankmill.settings.output import VerifySettings
from rankmill.wording import counted

DAMAGED = 1


def run(settings: VerifySettings) -> int:
    """Check an output and say what was found; returns the exit code: 0, or 1 when it is not whole.

    Raises:
        InputError: there is no output.
        StorageError: the store refused or cannot be reached.
    """
    found = verify(read(open_output(settings.output, settings.storage)), deep=settings.deep)
    values = {**asdict(found), "whole": found.whole}
    sys.stdout.write(json.dumps(values) + "\n" if settings.as_json else _text(found))
    return 0 if found.whole else DAMAGED


def _text(found: Verified) -> str:
    totals = found.totals
    state = "complete" if found.complete else "incomplete: its job is not finished"
    cut = totals.scored - totals.rows_out
    counts = (
        f"{totals.shards:,} of {counted(found.shards, 'shard')} committed: {counted(totals.pairs_in, 'pair')} read = "
        f"{totals.rows_out:,} ranked + {totals.rejected:,} rejected + {cut:,} cut by --top-k"
    )
    depth = "every byte was read" if found.deep else "records, sizes and footers were read; --deep reads every byte"
    wrong = len(found.problems)
    verdict = f"{counted(wrong, 'problem')}:" if wrong else f"No problem found ({depth})."
    unverified = [unverified_inputs(found.unverified_inputs)] if found.unverified_inputs else []
    lines = [f"{found.output} is {state}", counts, *unverified, verdict]
    lines += [f"  - {problem}" for problem in found.problems]
    return "\n".join(lines) + "\n"
