"""`--publish delta`: the finished parts as a Delta table, by one entry of a `_delta_log` and without a copy.

The entry is written after `_SUCCESS`, never before: engines that read the log believe it alone, so that it must not be
there while the job can still fail. A run that is killed between the two is made good by the same command, which finds
the job complete. The entry is created like everything else, if nothing is there, and made of the commit records, so
that whoever writes it writes the same: a second one adopts it, and the log of another table is refused.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.types as pt

from rankmill.batch.receipts import Receipt
from rankmill.errors import OutputConflictError, UsageError
from rankmill.storage.store import Store

LOG = "_delta_log"
ENTRY = f"{LOG}/{0:020}.json"

_TABLES = uuid.UUID("6f2b2f0e-5c7c-4a53-9d3e-2f6f0d6a7c11")  # of our own making: ids of tables are made within it
_TYPES = {
    pa.string(): "string",
    pa.large_string(): "string",
    pa.binary(): "binary",
    pa.large_binary(): "binary",
    pa.bool_(): "boolean",
    pa.int8(): "byte",
    pa.int16(): "short",
    pa.int32(): "integer",
    pa.int64(): "long",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.date32(): "date",
    pa.timestamp("us", "UTC"): "timestamp",
}
_NOT_IN_NAMES = set(" ,;{}()\n\t=")
_MAX_DIGITS = 38  # of a decimal


@dataclass(frozen=True, slots=True)
class Said:
    """What an entry says, as far as it tells one table from another."""

    table: str
    """Id; empty where there is none."""
    files: Mapping[str, int]
    """Bytes of each file, by path."""


def refuse_types(schema: pa.Schema) -> None:
    """Refuse columns that a Delta table cannot have.

    Raises:
        UsageError: naming all of them.
    """
    problems = [
        f"column {field.name} is {field.type}, for which Delta has no type"
        for field in schema
        if _type(field.type) is None
    ]
    problems += [
        f"column {name!r} has one of the characters ' ,;{{}}()=' in its name, or a line break"
        for name in schema.names
        if _NOT_IN_NAMES & set(name)
    ]
    if problems:
        raise UsageError(
            f"--publish delta is not possible: {'; '.join(problems)}. Cast or rename it in the input, leave it out of "
            "--keep, or do without --publish."
        )


def table_id(job: str) -> str:
    """The id of the table of a job: the same whoever publishes it.

    Args:
        job: fingerprint.
    """
    return str(uuid.uuid5(_TABLES, job))


def publish(store: Store, job: str, schema: pa.Schema, receipts: Mapping[int, Receipt], *, nested: bool) -> None:
    """Write the entry, or find it there.

    Args:
        store: the output of a complete job.
        job: its fingerprint.
        schema: of its parts, which `refuse_types` has accepted.
        receipts: of all shards.
        nested: whether a row of a part is a query, not a pair.

    Raises:
        OutputConflictError: the folder has the log of another table.
        StorageError: the store refused or cannot be reached.
    """
    body = _entry(job, schema, receipts, nested=nested)
    there = store.read_if_present(ENTRY)
    if there is None and not store.keys(LOG) and store.create(ENTRY, body):  # a log may have lost its first entries
        return
    there = there or store.read_if_present(ENTRY) or b""
    if said(there) != said(body):
        raise OutputConflictError(
            f"{store.join(LOG)} is the log of another Delta table (id {said(there).table or 'unknown'}, not "
            f"{table_id(job)}); it was left as it is. Move it away and run the same command again, or do without "
            "--publish: the output is complete."
        )


def said(entry: bytes) -> Said:
    """Read the first entry of a log; of one that is damaged, what can be read."""
    table, files = "", {}
    for line in entry.splitlines():
        try:
            action = orjson.loads(line)
            if "metaData" in action:
                table = str(action["metaData"]["id"])
            if "add" in action:
                files[str(action["add"]["path"])] = int(action["add"]["size"])
        except (ValueError, TypeError, KeyError):
            continue
    return Said(table, files)


def _entry(job: str, schema: pa.Schema, receipts: Mapping[int, Receipt], *, nested: bool) -> bytes:
    """Lines of JSON: https://github.com/delta-io/delta/blob/master/PROTOCOL.md, reader 1, writer 2."""
    shards = [receipt for _, receipt in sorted(receipts.items())]
    created = max((_milliseconds(receipt) for receipt in shards), default=0)
    actions: list[dict[str, Any]] = [
        {
            "commitInfo": {
                "timestamp": created,
                "operation": "WRITE",
                "operationParameters": {},
                "engineInfo": "rankmill",
            }
        },
        {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
        {
            "metaData": {
                "id": table_id(job),
                "format": {"provider": "parquet", "options": {}},
                "schemaString": orjson.dumps(_struct(schema)).decode(),
                "partitionColumns": [],
                "configuration": {},
                "createdTime": created,
            }
        },
    ]
    actions += [
        {
            "add": {
                "path": receipt.part,
                "partitionValues": {},
                "size": receipt.part_bytes,
                "modificationTime": _milliseconds(receipt),
                "dataChange": True,
                "stats": orjson.dumps({"numRecords": receipt.queries if nested else receipt.rows_out}).decode(),
            }
        }
        for receipt in shards
    ]
    return b"".join(orjson.dumps(action, option=orjson.OPT_APPEND_NEWLINE) for action in actions)


def _milliseconds(receipt: Receipt) -> int:
    return int(1000 * receipt.committed_at)


def _struct(fields: pa.Schema | pa.StructType) -> dict[str, Any]:
    columns = [{"name": field.name, "type": _type(field.type), "nullable": True, "metadata": {}} for field in fields]
    return {"type": "struct", "fields": columns}


def _type(kind: pa.DataType) -> str | dict[str, Any] | None:
    """What Delta calls an Arrow type; None where it has none that Parquet stores in the same way."""
    if pt.is_struct(kind):
        return None if any(_type(field.type) is None for field in kind) else _struct(kind)
    if pt.is_list(kind) or pt.is_large_list(kind):
        element = _type(kind.value_type)
        return None if element is None else {"type": "array", "elementType": element, "containsNull": True}
    if pt.is_decimal128(kind) and kind.precision <= _MAX_DIGITS:
        return f"decimal({kind.precision},{kind.scale})"
    return _TYPES.get(kind)
