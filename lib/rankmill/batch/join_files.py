"""Files that the tasks of a join leave for each other in the output, and the record that says a task is done."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import orjson
import pyarrow as pa

from rankmill.batch.group import Gathered, Keyed, in_bulk, write_sorted
from rankmill.storage.store import Store
from rankmill.tables import parquet
from rankmill.tables.locate import InputFile


@dataclass(frozen=True, slots=True)
class Slice:
    """Consecutive rows of a file of ours."""

    file: InputFile
    start: int
    stop: int


def once(name: str, store: Store, size: int, rows: Callable[[], Iterable[Keyed]]) -> list[Gathered]:
    """Write rows in files sorted by key, and a record of them; or read the record.

    Args:
        name: of the task, with its folder.
        store: the output.
        size: bytes of rows that a file holds.
        rows: makes the rows; not called where there is a record.
    """
    known = store.read_if_present(f"{name}.json")
    if known is not None:
        return from_json(known, store)
    pieces = enumerate(in_bulk(rows(), size))
    done = [write_sorted(table, keys, f"{name}-{number:06}", store) for number, (table, keys) in pieces]
    body = [[item.file.uri.rpartition("/")[2], item.file.size, item.ranges] for item in done]
    store.create(f"{name}.json", orjson.dumps([name.rpartition("/")[0], body]))
    return done


def from_json(body: bytes, store: Store) -> list[Gathered]:
    """What a record says."""
    folder, files = orjson.loads(body)
    return [
        Gathered(InputFile(store.join(f"{folder}/{name}"), size, "", store.storage), tuple(map(tuple, ranges)))
        for name, size, ranges in files
    ]


def by_key(done: Iterable[Iterable[Gathered]]) -> dict[int, list[Slice]]:
    """Where the rows of each key are; in the same order whichever task came first."""
    found: dict[int, list[Slice]] = defaultdict(list)
    for item in sorted((item for task in done for item in task), key=lambda item: item.file.uri):
        for key, start, stop in item.ranges:
            found[key].append(Slice(item.file, start, stop))
    return found


def joined(found: dict[int, list[Slice]], keys: Sequence[int]) -> tuple[Slice, ...]:
    """The slices of some keys; those that follow each other in a file are one."""
    merged: list[Slice] = []
    slices = sorted((item for key in keys for item in found.get(key, [])), key=lambda item: (item.file.uri, item.start))
    for item in slices:
        follows = bool(merged) and merged[-1].file == item.file and merged[-1].stop == item.start
        start = merged.pop().start if follows else item.start
        merged.append(Slice(item.file, start, item.stop))
    return tuple(merged)


def read_slices(slices: Sequence[Slice], schema: pa.Schema | None = None) -> pa.Table:
    """All rows of the slices; without a schema there must be some."""
    tables = [table for item in slices for table in parquet.read_table_rows(item.file, item.start, item.stop)]
    if schema is not None:
        tables.append(schema.empty_table())
    return pa.concat_tables(tables).combine_chunks()
