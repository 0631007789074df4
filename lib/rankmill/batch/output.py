"""The output folder: whose it is, what is finished in it, and the marker that says that all of it is."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import Any

import orjson

from rankmill import __version__
from rankmill.batch.plan import Plan
from rankmill.batch.receipts import Receipt, Totals
from rankmill.errors import OutputConflictError
from rankmill.storage.store import Store

JOB = "_rankmill/job.json"
COMMITS = "_rankmill/commits"
SUCCESS = "_SUCCESS"
_READERS = 32  # commit records are tiny and may be far away: the wait is latency


@dataclass(frozen=True, slots=True)
class JobRecord:
    """What a job is: everything that decides its output, and nothing else. Written once, first."""

    settings: Mapping[str, Any]
    """The settings that change the output, not worker counts or batch sizes."""
    inputs: tuple[tuple[str, int, str], ...]
    """(URI, bytes, version) of each input file."""
    scorer: str
    """Fingerprint of the scorer: the model's content, wherever it lies."""
    plan: Mapping[str, Any] | None = None
    """What `describe_plan` says, once the input was looked at; None before."""

    def to_json(self) -> bytes:
        """Canonical JSON, with the fingerprint and the version that wrote it."""
        body = {**asdict(self), "fingerprint": self.fingerprint, "rankmill": __version__}
        return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all fields."""
        return hashlib.sha256(orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)).hexdigest()


def describe_plan(plan: Plan, shard_pairs: int) -> dict[str, Any]:
    """The size of shards and a digest of which rows make which: another release may cut the same input otherwise."""
    digest = hashlib.sha256()
    for shard in plan.shards:
        digest.update(orjson.dumps(shard))
    for field in fields(plan.scattered):
        digest.update(getattr(plan.scattered, field.name).tobytes())
    return {"shard_pairs": shard_pairs, "digest": digest.hexdigest()}


def refuse_foreign(store: Store, job: JobRecord) -> None:
    """Refuse an output folder that holds another job, or something that is not ours.

    Raises:
        OutputConflictError: naming what differs.
    """
    recorded = store.read_if_present(JOB)
    if recorded is None:
        there = [name for name in store.top_level() if name != "_rankmill/"]  # killed before its record was in place
        if there:
            shown = ", ".join(there[:5]) + (", …" if len(there) > 5 else "")
            raise OutputConflictError(
                f"{store.uri} is not empty and holds no rankmill job ({shown}). Give an empty or a new folder."
            )
        return
    found = differing(orjson.loads(recorded), orjson.loads(job.to_json()))
    if found:
        raise OutputConflictError(
            f"{store.uri} holds a different job; it was left as it is. Give another --output, or the settings it was "
            "started with. What differs:\n" + "\n".join(f"  - {text}" for text in found)
        )


def claim(store: Store, job: JobRecord) -> None:
    """Write the job record, or find the same one there.

    Raises:
        OutputConflictError: another job was faster.
    """
    if not store.create(JOB, job.to_json()):
        refuse_foreign(store, job)


def finished_shards(store: Store) -> dict[int, Receipt]:
    """Receipts of the shards that are committed, by shard."""
    with ThreadPoolExecutor(_READERS) as pool:
        bodies = pool.map(store.read, list(store.keys(COMMITS)))
        return {receipt.shard: receipt for receipt in map(Receipt.from_json, bodies)}


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Say what differs between two job records, field by field."""
    found = [
        f"{name}: {old.get('settings', {}).get(name)!r} there, {value!r} here"
        for name, value in new["settings"].items()
        if old.get("settings", {}).get(name) != value
    ]
    before = {uri: (size, version) for uri, size, version in old.get("inputs", [])}
    after = {uri: (size, version) for uri, size, version in new["inputs"]}
    found += [f"input {uri} was not part of it" for uri in after.keys() - before.keys()]
    found += [f"input {uri} is gone" for uri in before.keys() - after.keys()]
    found += [f"input {uri} has changed" for uri in before.keys() & after.keys() if before[uri] != after[uri]]
    if old.get("scorer") != new["scorer"]:
        found.append("model: other weights, tokenizer, precision or truncation than there")
    if new["plan"] is not None and old.get("plan") != new["plan"]:
        found.append(
            f"shards: rankmill {old.get('rankmill')}, which began it, cut the input otherwise; end it with that"
        )
    return sorted(found)


def success_body(job: JobRecord, totals: Totals) -> bytes:
    """What `_SUCCESS` holds: the row counts."""
    body = {"job": job.fingerprint, **asdict(totals)}
    return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
