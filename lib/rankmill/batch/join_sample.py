"""Pairs that a join might make, for `rankmill plan`: texts from many places of both tables, put together by chance.

Which query meets which document only the whole join tells; how long texts are, a few of each tell well enough.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rankmill.batch.join_tables import Texts, TextTable

_PLACES = 32  # of a table, evenly spaced: neighbours are alike
_TEXTS = 64  # read in each, about


def sampled_pairs(texts: Texts) -> pa.Table:
    """Pairs of texts that can be scored.

    Args:
        texts: what a run is joined with.

    Returns:
        Columns `query`, `document` and `reason` (all null), as many rows as documents were read; none where either
        table has no texts.

    Raises:
        InputError, StorageError: a file cannot be read.
    """
    queries, documents = _texts_of(texts.queries), _texts_of(texts.corpus)
    if not len(queries):
        documents = documents.slice(0, 0)
    places = pa.array(np.arange(len(documents)) % max(len(queries), 1))
    texts_of_both = {"query": queries.column("text").take(places), "document": documents.column("text")}
    return pa.table(texts_of_both | {"reason": pa.nulls(len(documents), pa.string())})


def _texts_of(table: TextTable) -> pa.Table:
    """The usable ones of the texts at the places that are looked at."""
    found = pa.concat_tables([table.schema.empty_table(), *(_at(table, *place) for place in _places(table))])
    return found.filter(pc.and_(found.column("reason").is_null(), found.column("text").is_valid()))


def _at(table: TextTable, number: int, row: int, offset: int) -> pa.Table:
    """The texts at a place. Of lines, as many bytes everywhere: a place in long texts is met more often than others."""
    item = table.files[number]
    if item.rows or item.file.problem:
        wanted = _TEXTS
    elif item.file.compressed:
        wanted = max(_TEXTS * _PLACES // len(table.files), _TEXTS)  # of the one place it has
    else:
        wanted = 4 * _TEXTS
    texts = pa.concat_tables([table.schema.empty_table(), *table.read(number, row, row + wanted, offset)])
    if item.rows or item.file.compressed:
        return texts
    # a place in the middle of a line begins with what is no JSON, and so has no id and is left out
    sizes = pc.fill_null(pc.binary_length(texts.column("text")), 0).to_numpy()
    room = min(_TEXTS * item.mean_bytes, item.file.size / _PLACES)
    return texts.slice(0, int(np.searchsorted(np.cumsum(sizes), room)) + 1)


def _places(table: TextTable) -> Iterator[tuple[int, int, int]]:
    """(file, first row, byte to begin at): evenly over all rows; of a compressed file, only its start."""
    counts = np.array([item.rows or item.text_bytes / max(item.mean_bytes, 1) for item in table.files])
    ends = np.cumsum(counts)
    if not ends[-1]:
        return
    places: dict[tuple[int, int, int], None] = {}
    for at in np.linspace(0, ends[-1], _PLACES, endpoint=False):
        number = int(np.searchsorted(ends, at, side="right"))
        item, share = table.files[number], 1 - (ends[number] - at) / counts[number]
        begins = item.rows or item.file.compressed  # with line 0
        places[number, int(share * item.rows), 0 if begins else int(share * item.file.size)] = None
    yield from places
