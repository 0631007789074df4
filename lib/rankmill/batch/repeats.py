"""Pairs of a shard that need no forward pass: an earlier job scored them, or the shard holds the same texts twice.

Those whose texts were in another shard are found later, right before they would be scored (`rankmill.batch.memory`).

They are taken out before the shard is tokenised, ride along past the model, and are put back before it is ranked, in
their old places: what is written is what would be written if every pair were scored.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rankmill.batch.freight import ScoredShard
from rankmill.batch.score_files import KEYS, RESULTS, SCHEMA, with_keys

Find = Callable[[pa.Table], pa.Table]
"""Takes rows with keys, returns what is known of them: rows of `score_files.SCHEMA`, each key once at most."""


def take_out(table: pa.Table, find: Find | None = None) -> tuple[pa.Table, pa.Table | None]:
    """Take out the pairs that need not be scored.

    Args:
        table: rows of a shard in canonical form.
        find: looks pairs up in an earlier job.

    Returns:
        The rows that are left, rows that cannot be scored included, with `query_key`, `pair_key` and `position` in the
        shard; and those taken out, without their texts, with `RESULTS` besides: null where they are those of a pair
        that was left and has the same `pair_key`. None when nothing was taken out.
    """
    table = with_keys(table).append_column("position", pa.array(np.arange(len(table))))
    keys = table.column("pair_key").combine_chunks()
    scorable = keys.is_valid().to_numpy(zero_copy_only=False)
    found = SCHEMA.empty_table() if find is None else find(table.select(KEYS).filter(keys.is_valid()))
    place = _places(table, found)
    codes = pc.dictionary_encode(keys).indices.fill_null(-1).to_numpy(zero_copy_only=False)
    again = np.ones(len(table), dtype=bool)
    again[np.unique(codes, return_index=True)[1]] = False
    out = scorable & (again | place.is_valid().to_numpy(zero_copy_only=False))
    if not out.any():
        return table, None
    known = table.filter(out).drop_columns(["query", "document", "reason", "detail"])
    results = found.select(RESULTS).take(place.filter(pa.array(out)))
    for name in RESULTS:
        known = known.append_column(name, results.column(name))
    return table.filter(~out), known.combine_chunks()


def with_recalled(shard: ScoredShard, recalled: pa.Table) -> ScoredShard:
    """The shard with pairs that were remembered (`memory.recall`) among those that are known."""
    known = recalled if shard.known is None else pa.concat_tables([shard.known, recalled])
    return replace(shard, known=known, recalled=len(recalled))


def put_back(shard: ScoredShard) -> ScoredShard:
    """The shard with what was taken out of it in its old place; a copy of a rejected pair is rejected like it."""
    if shard.known is None:
        return shard
    names = [name for name in shard.pairs.column_names if name != "document_start"]
    found = shard.known.filter(shard.known.column("logit").is_valid())
    settled, rejected = pa.concat_tables([table.select(names) for table in (shard.pairs, found)]), shard.rejected
    copies = shard.known.filter(shard.known.column("logit").is_null())
    place = _places(copies, settled)
    alike = copies.filter(place.is_valid())
    results = settled.select([name for name in RESULTS if name in names]).take(place.drop_null())
    for name in results.column_names:
        alike = alike.set_column(alike.schema.get_field_index(name), name, results.column(name))
    rest = copies.filter(place.is_null())
    reasons = rejected.select(["reason", "detail"]).take(_places(rest, rejected))
    for name in reasons.column_names:
        rest = rest.append_column(name, reasons.column(name))
    if rest.column("reason").null_count:
        raise AssertionError(f"Shard {shard.index} lost a pair that others are copies of. This is a bug.")
    pairs = pa.concat_tables([settled, alike.select(names)])
    return replace(
        shard,
        pairs=pairs.sort_by("position").combine_chunks(),
        rejected=pa.concat_tables([rejected, rest.select(rejected.column_names)]),
        known=None,
    )


def _places(rows: pa.Table, among: pa.Table) -> pa.Array:
    """Where, among some rows, each row's pair is; null where it is not."""
    keys, values = (table.column("pair_key").combine_chunks() for table in (rows, among))
    return pc.index_in(keys, value_set=values, skip_nulls=True)
