"""Text as it lies in a file, made safe to use: valid UTF-8, of a bounded size, and not expanded before that is known.

A file of 300 bytes can hold a dictionary of one long text and a million rows that point to it. So readers hand text
columns over as dictionaries, and what a row will take is computed from the dictionary before any row gets its copy.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

TABLE_BYTES = 512 << 20
"""Text that the rows of a shard may take together; four times what the plan aims at."""


@dataclass(frozen=True, slots=True)
class Text:
    """A column of text, null where it cannot be used."""

    values: pa.Array
    """large_string, shape (rows,)."""
    broken: pa.Array | None = None
    """Where it is not valid UTF-8; None for nowhere."""
    too_large: pa.Array | None = None
    """Where a value has more bytes than are allowed; None for nowhere."""


def expanded_bytes(column: pa.Array, limit: int) -> NDArray[np.int64]:
    """Bytes that each value takes once it is expanded; 0 where it has more than `limit`, for those are left out.

    Args:
        column: text, in any spelling.
        limit: bytes a value may have.
    """
    column = without_unused(column)
    values = column.dictionary if pa.types.is_dictionary(column.type) else column
    sizes = pc.fill_null(pc.binary_length(values.cast(pa.large_binary())), 0).to_numpy(zero_copy_only=False)
    sizes = np.where(sizes > limit, 0, sizes).astype(np.int64)
    if not pa.types.is_dictionary(column.type):
        return np.asarray(sizes, dtype=np.int64)
    indices = pc.fill_null(column.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
    expanded: NDArray[np.int64] = np.append(sizes, 0)[indices]  # -1: the zero at the end
    return expanded


def without_unused(column: pa.Array) -> pa.Array:
    """The same column; a dictionary loses what no row has, for a batch may come with that of a whole row group."""
    if not pa.types.is_dictionary(column.type) or len(column.dictionary) <= len(column):
        return column
    indices = pc.fill_null(column.indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
    used, places = np.unique(indices, return_inverse=True)
    nulls = int(len(used) > 0 and used[0] < 0)
    renumbered = pa.array(places - nulls, mask=indices < 0)
    return pa.DictionaryArray.from_arrays(renumbered, column.dictionary.take(pa.array(used[nulls:])))


def read_text(column: pa.Array, limit: int, withheld: pa.Array | None = None) -> Text:
    """Check what Parquet readers do not: that text is UTF-8, and how long it is.

    Args:
        column: text, in any spelling; of a dictionary only the distinct values are looked at.
        limit: bytes a value may have.
        withheld: rows that shall be null, whatever they hold; shape (rows,).
    """
    column, indices = without_unused(column), None
    if pa.types.is_dictionary(column.type):
        column, indices = column.dictionary, column.indices
    if withheld is not None:
        indices = pa.array(np.arange(len(column))) if indices is None else indices
        indices = pc.if_else(withheld, pa.scalar(None, indices.type), indices)
    values, broken, too_large = _check(column.cast(pa.large_binary()), limit)
    if indices is None:
        return Text(values, broken, too_large)
    return Text(
        values.take(indices),
        None if broken is None else pc.fill_null(broken.take(indices), False),
        None if too_large is None else pc.fill_null(too_large.take(indices), False),
    )


def emptied(values: pa.Array, where: pa.Array) -> pa.Array:
    """The same values, null where it says so; their bytes are gone (`if_else` would keep room for them).

    Args:
        values: text or bytes, shape (rows,).
        where: booleans, shape (rows,), without nulls.
    """
    return values.take(pa.array(np.arange(len(values)), mask=where.to_numpy(zero_copy_only=False)))


def _check(raw: pa.Array, limit: int) -> tuple[pa.Array, pa.Array | None, pa.Array | None]:
    too_large = pc.fill_null(pc.greater(pc.binary_length(raw), limit), False)
    if pc.any(too_large).as_py():
        raw = emptied(raw, too_large)
    else:
        too_large = None
    text = raw.cast(pa.large_string(), safe=False)
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        broken = pa.array([value is not None and not _is_utf8(value) for value in raw.to_pylist()])
        return emptied(raw, broken).cast(pa.large_string()), broken, too_large
    return text, None, too_large


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
