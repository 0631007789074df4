"""The three stages that Ray Data runs on a shard: encode (CPU tasks), score (actors), write (CPU tasks).

Each takes and returns one-row tables (`rankmill.batch.freight`) and is a plain callable: no stage imports Ray.
"""

import hashlib
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rankmill.batch.freight import EncodedShard, ScoredShard, chunk_lists
from rankmill.batch.parts import PartOptions, rankings, rejected_rows, to_parquet
from rankmill.batch.plan import ReadUnit
from rankmill.batch.read import Source, read_shards
from rankmill.batch.receipts import Receipt
from rankmill.errors import ModelError, NonFiniteScoreError
from rankmill.ranking.rank import codes
from rankmill.scoring.chunks import Scored, score
from rankmill.scoring.load import load_encoder, load_scorer
from rankmill.scoring.model import Encoder
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.scorer import Scorer
from rankmill.storage.store import Store
from rankmill.tables.canonical import mark, split_rejected
from rankmill.tables.schema import BEST_CHUNK
from rankmill.tables.trec import check_ids
from rankmill.types import Chunks, EncodedPairs


@dataclass(frozen=True, slots=True)
class Encode:
    """Reads the shards of a unit, sorts out rows that cannot be scored, tokenises the rest."""

    units: tuple[ReadUnit, ...]
    source: Source
    scorer: ScorerOptions
    trec_run: bool = False
    """Whether a TREC run will be written: ids that it cannot carry are refused here, not after all the scoring."""

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Take unit numbers (column `unit`), yield one row per shard."""
        encoder = _encoder(self.scorer)
        for number in batch.column("unit").to_pylist():
            for shard, table in read_shards(self.units[number], self.source):
                if self.trec_run:
                    check_ids(split_rejected(table)[0])
                yield encode_shard(shard.index, table, encoder).to_row()


class Score:
    """Runs the model; one instance per worker of the actor pool.

    Args:
        options: which model, and how to run it.
        fingerprint: of the scorer that the job was planned with.

    Raises:
        ModelError: this machine holds another copy of the model.
    """

    def __init__(self, options: ScorerOptions, fingerprint: str) -> None:
        self._scorer = load_scorer(options)
        if self._scorer.fingerprint != fingerprint:
            here, there = self._scorer.fingerprint[:12], fingerprint[:12]
            raise ModelError(
                f"The model {options.model!r} on {platform.node()} is not the one that the job was planned with "
                f"(scorer {here}, planned {there}): its files differ between machines."
            )

    def __call__(self, row: pa.Table) -> pa.Table:
        """Take one encoded shard, return it scored."""
        return score_shard(EncodedShard.from_row(row), self._scorer).to_row()


@dataclass(frozen=True, slots=True)
class Write:
    """Ranks a shard and commits it: rejected rows, part, commit record, in this order."""

    store: Store
    options: PartOptions

    def __call__(self, row: pa.Table) -> pa.Table:
        """Take one scored shard, return its receipt."""
        return write_shard(ScoredShard.from_row(row), self.store, self.options).to_row()


def encode_shard(index: int, table: pa.Table, encoder: Encoder) -> EncodedShard:
    """Tokenise the good rows of a canonical table; texts end here."""
    good, rejected = split_rejected(table)
    pairs = encoder.encode(good.column("query").to_pylist(), good.column("document").to_pylist())
    good = good.drop_columns(["query", "document", "reason", "detail"])
    for name, values in (
        ("length", pairs.lengths.astype(np.int32)),
        ("document_start", pairs.document_starts),
        ("truncated", pairs.truncated),
    ):
        good = good.append_column(name, pa.array(values))
    if pairs.chunks is not None:
        good = good.append_column("chunks", chunk_lists(pairs.chunks))
    return EncodedShard(index, good, rejected.drop_columns(["query", "document"]), pairs.token_ids)


def score_shard(shard: EncodedShard, scorer: Scorer) -> ScoredShard:
    """Score a shard; pairs without a finite logit are rejected with the reason, the others do not suffer."""
    pairs, table, rejected = shard.encoded_pairs(), shard.pairs, shard.rejected
    started = time.perf_counter()
    scored: Scored | None = None
    while scored is None:
        try:
            scored = score(scorer, pairs)
        except NonFiniteScoreError as error:
            if not error.pairs:
                raise
            bad = np.zeros(len(pairs), dtype=bool)
            bad[list(error.pairs)] = True
            rejected = pa.concat_tables([rejected, _reject(table.filter(bad), rejected.schema, error.reason)])
            pairs, table = without(pairs, np.flatnonzero(bad)), table.filter(~bad)
    seconds = time.perf_counter() - started
    if scored.best is not None:
        table = table.drop_columns("chunks")
        for column, characters in zip(BEST_CHUNK, scored.best.T, strict=True):
            table = table.append_column(column, pa.array(characters, pa.int32(), mask=characters < 0))
    table = table.append_column("logit", pa.array(scored.logits, pa.float32()))
    return ScoredShard(shard.index, table, rejected, seconds)


def write_shard(shard: ScoredShard, store: Store, options: PartOptions) -> Receipt:
    """Write a shard's files. Whoever writes a part first has written it; a repeated shard adopts what is there."""
    part = f"part-{shard.index:06}.parquet"
    record = f"_rankmill/commits/{shard.index:06}.json"
    if len(shard.rejected):
        store.create(f"_rejected/{part}", to_parquet(rejected_rows(shard, options), options))
    body = to_parquet(rankings(shard, options), options)
    if not store.create(part, body):
        body = store.read(part)
    receipt = _receipt(shard, part, body, options)
    if not store.create(record, receipt.to_json()):
        receipt = Receipt.from_json(store.read(record))
    return receipt


def without(pairs: EncodedPairs, dropped: NDArray[np.int64]) -> EncodedPairs:
    """The pairs without those at the given positions."""
    kept = np.ones(len(pairs), dtype=bool)
    kept[dropped] = False
    lengths, chunks = pairs.lengths, pairs.chunks
    if chunks is not None:
        rows = np.repeat(kept, chunks.counts)
        chunks = Chunks(chunks.counts[kept], chunks.lengths[rows], chunks.spans[rows])
    return EncodedPairs(
        token_ids=pairs.token_ids[np.repeat(kept, lengths)],
        offsets=np.concatenate([[0], np.cumsum(lengths[kept])]).astype(np.int64),
        document_starts=pairs.document_starts[kept],
        truncated=pairs.truncated[kept],
        chunks=chunks,
    )


@lru_cache(maxsize=1)
def _encoder(options: ScorerOptions) -> Encoder:
    """One per worker process, because loading a tokenizer costs as much as tokenising a thousand pairs."""
    return load_encoder(options)


def _reject(table: pa.Table, schema: pa.Schema, reason: str) -> pa.Table:
    nothing = pa.nulls(len(table), pa.string())
    rows = table.append_column("reason", nothing).append_column("detail", nothing)
    return mark(rows, pa.array(np.ones(len(rows), dtype=bool)), reason).select(schema.names)


def _receipt(shard: ScoredShard, part: str, body: bytes, options: PartOptions) -> Receipt:
    query_codes = codes(shard.pairs.column("query_id").combine_chunks())
    doc_codes = codes(shard.pairs.column("doc_id").combine_chunks())
    distinct = len(np.unique(np.stack([query_codes, doc_codes]), axis=1).T) if len(query_codes) else 0
    sizes = np.bincount(query_codes) if len(query_codes) else np.zeros(0, dtype=np.int64)
    rows_out = int(sizes.sum() if options.top_k is None else np.minimum(sizes, options.top_k).sum())
    return Receipt(
        shard=shard.index,
        queries=len(sizes),
        pairs_in=len(shard.pairs) + len(shard.rejected),
        rejected=len(shard.rejected),
        rows_out=rows_out,
        truncated=int(np.sum(shard.pairs.column("truncated").to_numpy(zero_copy_only=False))),
        duplicates=len(query_codes) - distinct,
        tokens=int(np.sum(shard.pairs.column("length").to_numpy())),
        scoring_seconds=shard.scoring_seconds,
        part=part,
        part_bytes=len(body),
        part_sha256=hashlib.sha256(body).hexdigest(),
    )
