"""`rankmill verify`: does an output hold what its job promised, every pair accounted for once, every byte as written?

The commit records say what was written, the manifest repeats it with the hash of each record, `_SUCCESS` has the hash
of the manifest: whatever was changed afterwards disagrees with one of them. Without `deep` a part costs one small read,
its footer; with it every part is read whole.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from rankmill.batch import manifest, output, plan_file, publish
from rankmill.batch.receipts import Receipt, Totals, total
from rankmill.batch.recorded import Recorded
from rankmill.batch.verify_part import Look, Problem, check_footer, check_part, check_rejected, check_scores, twice

_FOOTERS = 32  # read at a time: small and far away, the wait is latency
_PARTS = 4  # whole parts held at a time


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found."""

    output: str
    complete: bool
    """Whether the job says that it is done."""
    shards: int
    """Of the plan."""
    totals: Totals
    """Of the shards that are committed."""
    deep: bool
    unverified_inputs: int | None
    """Files of the input that carried no checksums; None where the job record does not say."""
    problems: tuple[Problem, ...]

    @property
    def whole(self) -> bool:
        """Whether the output is complete and nothing is wrong with it."""
        return self.complete and not self.problems


def verify(recorded: Recorded, *, deep: bool = False) -> Verified:
    """Check an output.

    Args:
        recorded: the output, as it was read.
        deep: read every part whole: hashes, page checksums, ranks, ids.

    Raises:
        StorageError: the store refused or cannot be reached. What is wrong with the output is not raised.
    """
    receipts, problems = _receipts(recorded)
    problems += _job(recorded, receipts)
    problems += _plan(recorded, receipts)
    complete = recorded.success is not None
    lacking = sorted(set(range(recorded.plan["shards"])) - receipts.keys())
    if complete:
        problems += _finish(recorded, receipts, lacking)
    if complete and not lacking:
        problems += _published(recorded, receipts)
    problems += _files(recorded, receipts, every_shard=complete and not lacking)
    problems += _contents(recorded, receipts, deep=deep)
    totals = total(receipt for _, receipt in sorted(receipts.items()))
    return Verified(
        output=recorded.store.uri,
        complete=complete,
        shards=recorded.plan["shards"],
        totals=totals,
        deep=deep,
        unverified_inputs=recorded.job.get("unverified"),
        problems=tuple(sorted(problems, key=_order)),
    )


def _order(problem: Problem) -> tuple[str, str]:
    return problem.file, problem.expected


def _receipts(recorded: Recorded) -> tuple[dict[int, Receipt], list[Problem]]:
    """Receipts by shard, of the records that can be read; each must be filed under its own shard."""
    receipts: dict[int, Receipt] = {}
    problems = []
    for key, body in recorded.records.items():
        try:
            receipt = Receipt.from_json(body)
        except ValueError as error:
            problems.append(Problem(key, "a commit record", f"{len(body)} bytes that are none ({error})"))
            continue
        if key != f"{output.COMMITS}/{receipt.shard:06}.json":
            problems.append(Problem(key, "the record of the shard that it is named after", f"shard {receipt.shard}"))
        elif receipt.shard >= recorded.plan["shards"]:
            problems.append(Problem(key, f"shards 0 to {recorded.plan['shards'] - 1}", f"shard {receipt.shard}"))
        else:
            receipts[receipt.shard] = receipt
    return receipts, problems


def _job(recorded: Recorded, receipts: Mapping[int, Receipt]) -> Iterator[Problem]:
    """The job record by itself, and the counts of every shard by themselves."""
    said, real = recorded.job.get("fingerprint"), output.fingerprint_of(recorded.job)
    if said != real:
        yield Problem(output.JOB, f"fingerprint {real}, by its content", str(said))
    top_k = recorded.job["settings"].get("top_k")
    for shard, receipt in sorted(receipts.items()):
        key = f"{output.COMMITS}/{shard:06}.json"
        accounted = receipt.rows_out + receipt.rejected
        if accounted > receipt.pairs_in or (top_k is None and accounted < receipt.pairs_in):
            sums = f"{receipt.rows_out} ranked + {receipt.rejected} rejected"
            yield Problem(key, f"the {receipt.pairs_in} pairs that were read", sums)
        elif top_k is not None and receipt.rows_out > top_k * receipt.queries:
            yield Problem(key, f"{top_k} pairs per query at most, of {receipt.queries}", f"{receipt.rows_out} pairs")
        if bool(receipt.rejected) != bool(receipt.rejected_part):
            name = receipt.rejected_part or "none"
            yield Problem(key, f"a file for {receipt.rejected} rejected rows", name)


def _plan(recorded: Recorded, receipts: Mapping[int, Receipt]) -> Iterator[Problem]:
    """The plan by what the job record says of it, and every shard by the plan."""
    body = recorded.store.read_if_present(plan_file.PLAN)
    if body is None:
        yield Problem(plan_file.PLAN, "a plan", "none")
        return
    try:
        found = plan_file.digest(body)
    except ValueError as error:
        yield Problem(plan_file.PLAN, "a plan", f"{len(body)} bytes that are none ({error})")
        return
    if found != recorded.plan.get("digest"):
        yield Problem(plan_file.PLAN, f"rows of sha256 {recorded.plan.get('digest')}, by {output.JOB}", found)
        return
    for batch in plan_file.read(body):
        for shard, pairs in zip(batch["shard"].to_pylist(), batch["pairs"].to_pylist(), strict=True):
            if shard in receipts and receipts[shard].pairs_in != pairs:
                key = f"{output.COMMITS}/{shard:06}.json"
                yield Problem(key, f"the {pairs} pairs of the plan", f"{receipts[shard].pairs_in} pairs")


def _finish(recorded: Recorded, receipts: Mapping[int, Receipt], lacking: Sequence[int]) -> Iterator[Problem]:
    """What a finished job must have: every shard of the plan, every pair, a manifest and a marker that agree.

    Where records lack, sums and lists that were made of all of them are not compared: that would say it many times.
    """
    fingerprint = recorded.job.get("fingerprint")
    plan = recorded.plan
    for key in (f"{output.COMMITS}/{shard:06}.json" for shard in lacking):
        if key not in recorded.records:  # what is there and cannot be read was named already
            yield Problem(key, "a commit record", "none")
    totals = total(receipt for _, receipt in sorted(receipts.items()))
    if totals.pairs_in != plan["pairs"] and not lacking:
        yield Problem(output.COMMITS, f"the {plan['pairs']} pairs of the plan", f"{totals.pairs_in} pairs")
    marker = _json(recorded.success)
    if marker is None:
        yield Problem(output.SUCCESS, "a JSON object", "something else")
        marker = {}
    yield from _differences(output.SUCCESS, {"job": fingerprint, **({} if lacking else asdict(totals))}, marker)
    if recorded.manifest is None:
        yield Problem(manifest.MANIFEST, "a manifest", "none")
        return
    found = hashlib.sha256(recorded.manifest).hexdigest()
    if found != marker.get("manifest_sha256"):
        yield Problem(manifest.MANIFEST, f"sha256 {marker.get('manifest_sha256')}, by {output.SUCCESS}", found)
    listed = _json(recorded.manifest)
    if listed is None:
        yield Problem(manifest.MANIFEST, "a JSON object", "something else")
        return
    if lacking:
        return
    expected = _json(manifest.to_json(str(fingerprint), receipts, recorded.records)) or {}
    yield from _differences(manifest.MANIFEST, {name: expected[name] for name in ("job", "totals")}, listed)
    yield from _listed(listed, expected)


def _published(recorded: Recorded, receipts: Mapping[int, Receipt]) -> Iterator[Problem]:
    """The first entry of a Delta log, where there is one, against the commit records."""
    body = recorded.store.read_if_present(publish.ENTRY) if publish.ENTRY in recorded.sizes else None
    if body is None:
        return
    table, there = publish.table_id(str(recorded.job.get("fingerprint"))), publish.said(body)
    if there.table != table:
        yield Problem(publish.ENTRY, f"the table {table} of this job", there.table or "none")
    parts = {file.key: file.bytes for file in manifest.parts_of(receipts)}
    for key in sorted(parts.keys() | there.files.keys()):
        if parts.get(key) != there.files.get(key):
            yield Problem(
                publish.ENTRY, f"{key} with {_shown(parts.get(key))} bytes", f"{_shown(there.files.get(key))}"
            )


def _listed(listed: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[Problem]:
    """The files that the manifest lists, against what the commit records say of them and what those are themselves."""
    for section in ("parts", "rejected", "scores"):
        old = {file["key"]: file for file in listed.get(section, [])}
        new = {file["key"]: file for file in expected[section]}
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                yield Problem(key, f"as in the manifest: {_shown(old.get(key))}", f"{_shown(new.get(key))} committed")
    old, new = listed.get("commits", {}), expected["commits"]
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield Problem(
                key, f"sha256 {old.get(key, 'none')}, by the manifest", f"{new.get(key, 'no readable record')}"
            )


def _files(recorded: Recorded, receipts: Mapping[int, Receipt], *, every_shard: bool) -> Iterator[Problem]:
    """What is there: all that is named, in its size, and nothing that readers of the folder would read besides.

    Unless there is a record of every shard, a file of a shard may be named by one that lacks.
    """
    named = manifest.named_files(receipts)
    for key, size in named.items():
        there = recorded.sizes.get(key)
        if there != size:
            yield Problem(key, f"{size} bytes", "no such file" if there is None else f"{there} bytes")
    for key in recorded.sizes.keys() - named.keys():
        hidden = any(part.startswith(("_", ".")) for part in key.split("/"))
        if (not hidden or key.startswith("_rejected/")) and (every_shard or not of_a_shard(key)):
            yield Problem(key, "no such file: no commit record names it", f"{recorded.sizes[key]} bytes")


def of_a_shard(key: str) -> bool:
    """Whether it may be a file of a shard that is being written, or that a killed process left."""
    return key.startswith(("part-", "_rejected/part-"))


def _contents(recorded: Recorded, receipts: Mapping[int, Receipt], *, deep: bool) -> list[Problem]:
    """Footers, or with `deep` everything, of the files that have the right size."""
    sizes = recorded.sizes
    parts = [receipt for _, receipt in sorted(receipts.items()) if sizes.get(receipt.part) == receipt.part_bytes]
    rejected = [
        r for _, r in sorted(receipts.items()) if r.rejected_part and sizes.get(r.rejected_part) == r.rejected_bytes
    ]
    scores = [r for _, r in sorted(receipts.items()) if r.scores_part and sizes.get(r.scores_part) == r.scores_bytes]
    look = Look(
        store=recorded.store,
        scorer=str(recorded.job.get("scorer")),
        nested=recorded.job["settings"].get("shape") == "nested",
        top_k=recorded.job["settings"].get("top_k"),
    )
    if not deep:
        return _each(_FOOTERS, lambda receipt: check_footer(receipt, look), parts)
    problems = _each(_PARTS, lambda receipt: check_rejected(receipt, look), rejected)
    problems += _each(_PARTS, lambda receipt: check_scores(receipt, look), scores)
    queries = {}

    def whole(receipt: Receipt) -> list[Problem]:
        found, queries[receipt.part] = check_part(receipt, look)
        return found

    return [*problems, *_each(_PARTS, whole, parts), *twice(queries)]


def _each(threads: int, check: Callable[[Receipt], list[Problem]], receipts: list[Receipt]) -> list[Problem]:
    with ThreadPoolExecutor(threads) as pool:
        return [problem for problems in pool.map(check, receipts) for problem in problems]


def _differences(key: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Problem]:
    for name, value in expected.items():
        if found.get(name) != value:
            yield Problem(key, f"{name} {_shown(value)}", _shown(found.get(name)))


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(item)}" for name, item in value.items())
    return "none" if value is None else str(value)


def _json(body: bytes | None) -> dict[str, Any] | None:
    """The JSON object, or None when it is none."""
    try:
        value = orjson.loads(body or b"")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
