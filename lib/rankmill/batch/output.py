"""The output folder: whose it is, what is finished in it, and the marker that says that all of it is."""

import hashlib
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from rankmill import __version__
from rankmill.batch import plan_file
from rankmill.batch.manifest import MANIFEST
from rankmill.batch.plan import Plan
from rankmill.batch.receipts import Receipt, Totals, total
from rankmill.errors import InputError, OutputConflictError, StorageError
from rankmill.storage.store import Store
from rankmill.tables.locate import InputFile

JOB = "_rankmill/job.json"
COMMITS = "_rankmill/commits"
SUCCESS = "_SUCCESS"
_SHOWN = 5  # counts that differ, most of them for one reason
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
    command: Mapping[str, Any] = field(default_factory=dict)
    """The input and the scorer as they were asked for: what a later command needs to do the like. Not an identity."""
    unverified: int | None = None
    """Files of the input that carry no checksums: nobody would notice a byte that flipped in them. Not an identity."""

    def to_json(self) -> bytes:
        """Canonical JSON, with the fingerprint, the version that wrote it and when (seconds since 1970)."""
        body = {**asdict(self), "fingerprint": self.fingerprint, "rankmill": __version__, "begun_at": time.time()}
        return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what decides the output."""
        return fingerprint_of(asdict(self))


def fingerprint_of(record: Mapping[str, Any]) -> str:
    """The fingerprint of a job record, before it is written or as it was read."""
    identity = {name: record.get(name) for name in ("settings", "inputs", "scorer", "plan")}
    return hashlib.sha256(orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)).hexdigest()


def describe_plan(plan: Plan, shard_pairs: int, file: bytes) -> dict[str, Any]:
    """The counts, and digests of which rows make which shard: another release may cut the same input otherwise.

    Args:
        plan: as it was cut, before anything was gathered.
        shard_pairs: the shard size that was aimed at.
        file: the plan as `plan_file.to_parquet` writes it.
    """
    return {
        "shard_pairs": shard_pairs,
        "digest": plan_file.digest(file),
        "scattered": plan_file.scattered_digest(plan.scattered),
        "shards": len(plan.shards),
        "queries": plan.queries,
        "pairs": plan.pairs,
        "rejected_files": [file.uri for file in plan.files if file.problem],
    }


def refuse_foreign(store: Store, job: JobRecord) -> None:
    """Refuse an output folder that holds another job, or something that is not ours.

    Raises:
        OutputConflictError: naming what differs.
    """
    recorded = store.read_if_present(JOB)
    if recorded is None:
        there = [name for name in store.top_level() if name != "_rankmill/"]  # killed before its record was in place
        recorded = store.read_if_present(JOB) if there else None  # another run may have begun between the two looks
        if there and recorded is None:
            shown = ", ".join(there[:5]) + (", …" if len(there) > 5 else "")
            raise OutputConflictError(
                f"{store.uri} is not empty and holds no rankmill job ({shown}). Give an empty or a new folder."
            )
    if recorded is None:
        return
    try:
        found = differing(orjson.loads(recorded), orjson.loads(job.to_json()))
    except (ValueError, TypeError, AttributeError) as error:  # no JSON, or another shape
        raise OutputConflictError(
            f"{store.join(JOB)} is damaged ({error}), so that nobody can tell whose output this is; it was left as it "
            "is. Put the file back from a copy, or give another --output."
        ) from error
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


def commit_records(store: Store, known: Collection[str] = ()) -> dict[str, bytes]:
    """The commit records, by key.

    Args:
        store: the output.
        known: keys of those that need not be read again: they never change.
    """
    keys = [key for key in store.keys(COMMITS) if key not in known]
    with ThreadPoolExecutor(_READERS) as pool:
        return dict(zip(keys, pool.map(store.read, keys), strict=True))


def receipts_in(records: Mapping[str, bytes], store: Store) -> dict[int, Receipt]:
    """Receipts, by shard.

    Raises:
        StorageError: a record is damaged.
    """
    receipts = {}
    for key, body in records.items():
        try:
            receipt = Receipt.from_json(body)
        except ValueError as error:
            raise StorageError(
                f"{store.join(key)} is no commit record of this release ({error}). Delete it, and {SUCCESS} and "
                f"{MANIFEST} where the job was finished; the same command then commits its shard again."
            ) from error
        receipts[receipt.shard] = receipt
    return receipts


def finished_shards(store: Store) -> dict[int, Receipt]:
    """Receipts of the shards that are committed, by shard.

    Raises:
        StorageError: a record is damaged.
    """
    return receipts_in(commit_records(store), store)


def finished_job(store: Store, marker: bytes) -> tuple[dict[int, Receipt], Totals]:
    """Receipts and totals of a job that has its `_SUCCESS`, which must say the same as its plan and its records.

    Args:
        store: the output.
        marker: what `_SUCCESS` holds.

    Raises:
        StorageError: they do not agree, or a record is damaged.
    """
    receipts = finished_shards(store)
    totals = total(receipt for _, receipt in sorted(receipts.items()))
    try:
        said, plan = orjson.loads(marker), orjson.loads(store.read(JOB))["plan"]
        planned = {"shards": plan["shards"], "pairs_in": plan["pairs"]}
        found = [
            f"{name}: {value} by {who}, {getattr(totals, name)} by the commit records"
            for who, values in ((SUCCESS, {name: said[name] for name in asdict(totals)}), ("the plan", planned))
            for name, value in values.items()
            if value != getattr(totals, name)
        ]
    except (ValueError, KeyError, TypeError) as error:
        found = [f"{SUCCESS} or {JOB} cannot be understood ({error})"]
    if found:
        raise StorageError(
            f"{store.uri} has a {SUCCESS}, but is not what that says; nothing was done. `rankmill verify {store.uri}` "
            f"names what is amiss; without {SUCCESS} and {MANIFEST} the same command commits again what is missing.\n"
            + "\n".join(f"  - {text}" for text in found[:_SHOWN])
        )
    return receipts, totals


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


def refuse_changed(record: Mapping[str, Any], uri: str, files: Sequence[InputFile], scorer: str) -> None:
    """Refuse to go on from a recorded job whose input or model is no longer what it was.

    Args:
        record: the job record.
        uri: of its output.
        files: its input as it is now.
        scorer: fingerprint of its scorer as it is now.

    Raises:
        InputError: naming what differs.
    """
    inputs = [(file.uri, file.size, file.version) for file in files]
    changed = differing(record, {"settings": {}, "inputs": inputs, "scorer": scorer, "plan": None})
    if changed:
        raise InputError(f"The job of {uri} cannot be gone on from: what it was made of has changed.", changed)


def success_body(job: JobRecord, totals: Totals, manifest_sha256: str) -> bytes:
    """What `_SUCCESS` holds: the row counts, and which manifest says the rest."""
    body = {"job": job.fingerprint, "manifest_sha256": manifest_sha256, **asdict(totals)}
    return orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
