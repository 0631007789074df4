"""What a scoring worker remembers: a pair whose texts it has scored for one shard is not scored again for the next.

Such pairs come from queries that are asked more than once, under other ids, with the same documents found for them.
Workers do not tell each other, and each remembers only so much: a pair in several shards is scored once by each worker
at most, as long as it comes again among about the next hundred thousand. Its logit is the one that was found first;
that another batch could have led to another in its last places is no more than two runs of a job may differ anyway.
"""

import numpy as np
import pyarrow as pa

from rankmill.batch.freight import EncodedShard, ScoredShard, without
from rankmill.batch.score_files import RESULTS
from rankmill.tables.schema import BEST_CHUNK

PAIRS = 250_000
"""That are remembered at most, of which each takes about 280 bytes."""

_OF_A_PASS = ("logit", *BEST_CHUNK)
_Found = tuple[float, int | None, int | None]
_ENCODED = ("length", "document_start", "truncated", "chunks")  # what tokenising adds to a pair


class Memory:
    """Results of the pairs that were scored last, by `pair_key`; two generations, of which the older one is dropped.

    Args:
        pairs: how many at most.
    """

    def __init__(self, pairs: int = PAIRS) -> None:
        self._half = max(1, pairs // 2)
        self._young: dict[bytes, _Found] = {}
        self._old: dict[bytes, _Found] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def recall(self, shard: EncodedShard) -> tuple[EncodedShard, pa.Table | None]:
        """Take the pairs that are remembered out of a shard.

        Returns:
            The shard without them; and their rows with `RESULTS`, as those of `EncodedShard.known`, or None.
        """
        pairs = shard.pairs
        if not len(self) or "pair_key" not in pairs.column_names:
            return shard, None
        found = [self._young.get(key) or self._old.get(key) for key in pairs.column("pair_key").to_pylist()]
        places = np.array([place for place, result in enumerate(found) if result is not None], dtype=np.int64)
        if not len(places):
            return shard, None
        results = zip(*(result for result in found if result is not None), strict=True)
        rows = pairs.take(places)
        for name, values, kind in zip(_OF_A_PASS, results, (pa.float32(), pa.int32(), pa.int32()), strict=True):
            rows = rows.append_column(name, pa.array(values, kind))
        names = [name for name in pairs.column_names if name not in _ENCODED]
        rest = np.delete(np.arange(len(pairs)), places)
        tokens = without(shard.encoded_pairs(), places).token_ids
        left = EncodedShard(shard.index, pairs.take(rest).combine_chunks(), shard.rejected, tokens, shard.known)
        return left, rows.select([*names, *RESULTS]).combine_chunks()

    def remember(self, scored: ScoredShard) -> None:
        """Remember what was found out about the pairs of a shard."""
        pairs = scored.pairs
        if "pair_key" not in pairs.column_names:
            return
        nothing = [None] * len(pairs)
        columns = (pairs.column(name).to_pylist() if name in pairs.column_names else nothing for name in _OF_A_PASS)
        self._young.update(zip(pairs.column("pair_key").to_pylist(), zip(*columns, strict=True), strict=True))
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
