"""`rankmill retry-rejected`."""

import json
import logging
import sys
from typing import Any

from rankmill.batch.output import refuse_changed
from rankmill.batch.planning import understand
from rankmill.batch.recorded import Recorded, open_output, read
from rankmill.batch.retry import MENDABLE, Retry, rejected_rows_of
from rankmill.cli.rerank import report, rerank
from rankmill.errors import UsageError
from rankmill.settings.rerank import RerankSettings
from rankmill.settings.retry import RetrySettings
from rankmill.tables.canonical import REASONS

_log = logging.getLogger("rankmill")

_OVERRIDES = ("precision", "engine", "batch_tokens")
_OF_THIS_RUN = (
    *("output", "trust_remote_code", "workers", "gpus_per_worker", "cpus_per_worker", "max_rejected", "storage"),
    *("address", "as_json", "quiet"),
)
_OUTPUT_SETTINGS = (
    "top_k",
    "keep",
    "shape",
    "columns",
    "document_template",
    "activation",
    "bad_files",
    "max_text_bytes",
    "keep_scores",
)


def run(settings: RetrySettings) -> int:
    """Rank again what lost rows, and report; returns the exit code 0, also when there was nothing to do.

    Raises:
        RankmillError: see `rankmill.batch.job`; the class says what kind of trouble it is.
    """
    if settings.quiet:
        logging.getLogger("rankmill").setLevel(logging.ERROR)
    job, retry = choose(settings)
    if not len(retry):
        return _nothing_to_do(settings, retry)
    _log.info("%d rows were rejected for %s: their queries are ranked again", len(retry), " or ".join(retry.reasons))
    report(rerank(job, retry), job)
    return 0


def choose(settings: RetrySettings) -> tuple[RerankSettings, Retry]:
    """The job to run, and the rows whose queries it is about.

    Raises:
        UsageError: the earlier job is not finished, or a reason is none.
        InputError: there is no such job, or its input or model is not what it was.
        StorageError: the store refused or cannot be reached.
    """
    unknown = sorted(set(settings.reason) - REASONS.keys())
    if unknown:
        raise UsageError(f"--reason {','.join(unknown)} is none; rows are rejected for {', '.join(sorted(REASONS))}.")
    recorded = read(open_output(settings.finished, settings.storage))
    if recorded.success is None:
        raise UsageError(f"{recorded.store.uri} is not finished: run its own command again first, it continues.")
    retry = rejected_rows_of(recorded, settings.reason or MENDABLE)
    as_before = _as_before(recorded, settings)
    if not len(retry):
        return as_before, retry
    known = understand(as_before)
    refuse_changed(recorded.job, recorded.store.uri, known.inspected.every_file, known.card.fingerprint)
    changes = {name: getattr(settings, name) for name in _OVERRIDES if getattr(settings, name) is not None}
    job = as_before.model_copy(update=changes)
    # pairs of those queries that do have a score keep it, where the job kept scores that this one would find too
    if job.keep_scores and job.precision == as_before.precision:
        job = job.model_copy(update={"reuse": settings.finished})
    return job, retry


def _as_before(recorded: Recorded, settings: RetrySettings) -> RerankSettings:
    """The settings of the recorded job, but for where and on what this run runs."""
    before: dict[str, Any] = {
        **recorded.job["command"],
        **{name: recorded.job["settings"][name] for name in _OUTPUT_SETTINGS},
    }
    return RerankSettings(**before, **{name: getattr(settings, name) for name in _OF_THIS_RUN})


def _nothing_to_do(settings: RetrySettings, retry: Retry) -> int:
    sentence = f"{settings.finished} has no rows that were rejected for {' or '.join(retry.reasons)}: nothing to do."
    if settings.as_json:
        sys.stdout.write(json.dumps({"output": None, "run_pairs": 0, "reasons": list(retry.reasons)}) + "\n")
    elif not settings.quiet:
        sys.stdout.write(sentence + "\n")
    return 0
