"""The three stages that a shard goes through: encode (CPU tasks), score and write (actors).

Each takes and returns one-row tables (`rankmill.batch.freight`) and is a plain callable: no stage imports Ray.
"""

import hashlib
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rankmill.batch.freight import LIST, EncodedShard, ScoredShard, chunk_lists, without
from rankmill.batch.lists import lists_together
from rankmill.batch.parts import (
    SCORER,
    PartOptions,
    counts_in,
    footer_of,
    object_metadata,
    rankings,
    rejected_rows,
    to_parquet,
)
from rankmill.batch.plan import ReadUnit
from rankmill.batch.query_texts import several_texts
from rankmill.batch.read import Source, read_shards, refuse_duplicates
from rankmill.batch.receipts import Counts, Receipt
from rankmill.batch.repeats import Find, put_back, take_out
from rankmill.batch.score_files import FOLDER, scores_of, to_bytes
from rankmill.errors import ModelError, NonFiniteScoreError, StorageError
from rankmill.ranking.rank import codes
from rankmill.scoring.card_scorer import CardScorer
from rankmill.scoring.chunks import Scored, score
from rankmill.scoring.load import load_encoder, load_scorer
from rankmill.scoring.model import Encoder
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.scorer import Scorer
from rankmill.storage.store import Store
from rankmill.tables.canonical import mark, split_rejected
from rankmill.tables.schema import BEST_CHUNK
from rankmill.tables.trec import check_ids

_BESIDE = "another document of its list; a list is scored whole or not at all"


@dataclass(frozen=True, slots=True)
class Encode:
    """Reads the shards of a unit, sorts out rows that cannot be scored, tokenises the rest."""

    units: tuple[ReadUnit, ...]
    source: Source
    scorer: ScorerOptions
    trec_run: bool = False
    """Whether a TREC run will be written: ids that it cannot carry are refused here, not after all the scoring."""
    unique: bool = False
    """Whether a document may be there once for a query only."""
    guard: Callable[[int, pa.Table, ScorerOptions], EncodedShard] | None = None
    """What to tokenise a shard with instead of `encode_here`."""
    find: Find | None = None
    """Looks up pairs that an earlier job scored."""
    listwise: bool = False
    """Whether the model scores lists, so that no pair can be taken out of them."""

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Take unit numbers (column `unit`), yield one row per shard."""
        for number in batch.column("unit").to_pylist():
            yield from self.shards(self.units[number])

    def shards(self, unit: ReadUnit) -> Iterator[pa.Table]:
        """Yield one row per shard of a unit."""
        encode = self.guard or encode_here
        for shard, table in read_shards(unit, self.source):
            if self.trec_run:
                check_ids(split_rejected(table)[0])
            if self.unique:
                refuse_duplicates(split_rejected(table)[0])
            rest, known = (lists_together(table), None) if self.listwise else take_out(table, self.find)
            yield replace(encode(shard.index, rest, self.scorer), known=known).to_row()


class Score:
    """Runs the model; one instance per worker of the actor pool.

    Args:
        options: which model, and how to run it.
        fingerprint: of the scorer that the job was planned with.
        pulse: is called after each forward pass.

    Raises:
        ModelError: this machine holds another copy of the model.
    """

    def __init__(self, options: ScorerOptions, fingerprint: str, pulse: Callable[[], None] | None = None) -> None:
        self._scorer = load_scorer(options)
        if pulse is not None and isinstance(self._scorer, CardScorer):  # as all are that are loaded
            self._scorer.after_pass = pulse
        if self._scorer.fingerprint != fingerprint:
            here, there = self._scorer.fingerprint[:12], fingerprint[:12]
            raise ModelError(
                f"The model {options.model!r} on {platform.node()} is not the one that the job was planned with "
                f"(scorer {here}, planned {there}): its files differ between machines."
            )

    def __call__(self, row: pa.Table) -> pa.Table:
        """Take one encoded shard, return it scored."""
        return score_shard(EncodedShard.from_row(row), self._scorer).to_row()


class Tokenise:
    """Tokenises canonical tables, rows that cannot be scored included; for a process that does nothing else."""

    def __init__(self, options: ScorerOptions, _pulse: Callable[[], None]) -> None:
        self._encoder = load_encoder(options)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Take the rows of a shard, or some of them; return them encoded."""
        return encode_shard(0, table, self._encoder).to_row()


@dataclass(frozen=True, slots=True)
class Write:
    """Ranks a shard and commits it: rejected rows, part, scores, commit record, in this order."""

    store: Store
    options: PartOptions
    keep_scores: bool = False
    """Whether to leave the scores for later jobs."""

    def __call__(self, row: pa.Table) -> pa.Table:
        """Take one scored shard, return its receipt."""
        return write_shard(ScoredShard.from_row(row), self.store, self.options, keep_scores=self.keep_scores).to_row()


def encode_here(index: int, table: pa.Table, options: ScorerOptions) -> EncodedShard:
    """Tokenise a shard in this process."""
    return encode_shard(index, table, encoder_of(options))


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
    """Score a shard; pairs without a finite logit are rejected with the reason, the others do not suffer.

    A list with such a pair is rejected whole: the scores of its other documents depend on that one.
    """
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
            blamed = [reject(table.filter(bad), rejected.schema, error.reason)]
            if pairs.lists is not None:
                beside = np.isin(pairs.lists, pairs.lists[bad]) & ~bad
                blamed.append(reject(table.filter(beside), rejected.schema, error.reason, _BESIDE))
                bad |= beside
            rejected = pa.concat_tables([rejected, *blamed])
            pairs, table = without(pairs, np.flatnonzero(bad)), table.filter(~bad)
    seconds = time.perf_counter() - started
    if scored.best is not None:
        table = table.drop_columns("chunks")
        for column, characters in zip(BEST_CHUNK, scored.best.T, strict=True):
            table = table.append_column(column, pa.array(characters, pa.int32(), mask=characters < 0))
    table = table.append_column("logit", pa.array(scored.logits, pa.float32()))
    if shard.listwise:
        table = table.drop_columns(LIST).sort_by("position")  # ties are broken by the order of the input
    return ScoredShard(shard.index, table, rejected, seconds, shard.known)


def unscored(shard: EncodedShard) -> ScoredShard:
    """A scored shard of which no pair is left, and nothing is rejected yet."""
    table = shard.pairs.slice(0, 0)
    if shard.listwise:
        table = table.drop_columns(LIST)
    if "chunks" in table.column_names:
        table = table.drop_columns("chunks")
        for column in BEST_CHUNK:
            table = table.append_column(column, pa.array([], pa.int32()))
    table = table.append_column("logit", pa.array([], pa.float32()))
    return ScoredShard(shard.index, table, shard.rejected.slice(0, 0), 0.0)


def write_shard(shard: ScoredShard, store: Store, options: PartOptions, *, keep_scores: bool = False) -> Receipt:
    """Write a shard's files. Whoever writes a part first has written it; a repeated shard adopts what is there."""
    known, reused = _known(shard)
    shard = put_back(shard)
    name = f"part-{shard.index:06}"
    part, record = f"{name}.parquet", f"_rankmill/commits/{shard.index:06}.json"
    rejected_part, rejected = "", b""
    if len(shard.rejected):
        rejected = to_parquet(rejected_rows(shard, options), options)
        # named by its content: another attempt may reject other rows, and the part that wins says which file is its own
        rejected_part = f"_rejected/{name}-{hashlib.sha256(rejected).hexdigest()[:16]}.parquet"
        store.create(rejected_part, rejected)
    counts = _counts(shard, rejected_part, rejected, options)
    body = to_parquet(rankings(shard, options), options, counts)
    if not store.create(part, body, object_metadata(body, counts)):
        body = store.read(part)
        counts = _counts_of_another(store.join(part), body, options.fingerprint)
        keep_scores = keep_scores and counts.rejected_part == rejected_part  # else they are not of the part's pairs
    scores_part, scores = "", b""
    if keep_scores:
        scores = to_bytes(scores_of(shard.pairs))
        # named by its content: another attempt may have found slightly other logits, on another machine
        scores_part = f"{FOLDER}/{shard.index:06}-{hashlib.sha256(scores).hexdigest()[:16]}.parquet"
        store.create(scores_part, scores)
    receipt = Receipt(
        **asdict(counts),
        reused=reused,
        repeated=known - reused,
        scores_part=scores_part,
        scores_bytes=len(scores),
        scores_sha256=hashlib.sha256(scores).hexdigest() if scores else "",
        scoring_seconds=shard.scoring_seconds,
        part=part,
        part_bytes=len(body),
        part_sha256=hashlib.sha256(body).hexdigest(),
        footer_sha256=hashlib.sha256(footer_of(body) or b"").hexdigest(),
        committed_at=time.time(),
    )
    if not store.create(record, receipt.to_json()):
        receipt = Receipt.from_json(store.read(record))
    return receipt


@lru_cache(maxsize=1)
def encoder_of(options: ScorerOptions) -> Encoder:
    """One per worker process, because loading a tokenizer costs as much as tokenising a thousand pairs."""
    return load_encoder(options)


def reject(table: pa.Table, schema: pa.Schema, reason: str, detail: str | None = None) -> pa.Table:
    """Rows of `pairs` as rows of `rejected`, whose schema is given."""
    table = table.drop_columns([name for name in ("reason", "detail") if name in table.column_names])
    nothing = pa.nulls(len(table), pa.string())
    rows = table.append_column("reason", nothing).append_column("detail", nothing)
    return mark(rows, pa.array(np.ones(len(rows), dtype=bool)), reason, detail).select(schema.names)


def _known(shard: ScoredShard) -> tuple[int, int]:
    """How many pairs of a shard were not scored, and how many of those because an earlier job had scored them."""
    if shard.known is None:
        return 0, 0
    with_score = len(shard.known) - shard.known.column("logit").null_count
    return len(shard.known), with_score - shard.recalled


def _counts(shard: ScoredShard, rejected_part: str, rejected: bytes, options: PartOptions) -> Counts:
    query_codes = codes(shard.pairs.column("query_id").combine_chunks())
    doc_codes = codes(shard.pairs.column("doc_id").combine_chunks())
    distinct = len(np.unique(np.stack([query_codes, doc_codes]), axis=1).T) if len(query_codes) else 0
    sizes = np.bincount(query_codes) if len(query_codes) else np.zeros(0, dtype=np.int64)
    unlike, first_unlike = several_texts(shard.pairs, query_codes)
    rows_out = int(sizes.sum() if options.top_k is None else np.minimum(sizes, options.top_k).sum())
    return Counts(
        shard=shard.index,
        queries=len(sizes),
        pairs_in=len(shard.pairs) + len(shard.rejected),
        rejected=len(shard.rejected),
        rows_out=rows_out,
        truncated=int(np.sum(shard.pairs.column("truncated").to_numpy(zero_copy_only=False))),
        duplicates=len(query_codes) - distinct,
        unlike_queries=unlike,
        first_unlike_query=first_unlike,
        tokens=int(np.sum(shard.pairs.column("length").to_numpy())),
        rejected_part=rejected_part,
        rejected_bytes=len(rejected),
        rejected_sha256=hashlib.sha256(rejected).hexdigest() if rejected else "",
    )


def _counts_of_another(uri: str, body: bytes, scorer: str) -> Counts:
    """What the part says that another attempt wrote first: its counts go with it, whatever this attempt found."""
    try:
        metadata = pq.read_metadata(pa.BufferReader(body)).metadata
        counts = counts_in(metadata)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StorageError(
            f"{uri} was there already and is no part of this job ({error}). Delete it and run the same command again."
        ) from error
    made_by = metadata.get(SCORER, b"").decode()
    if made_by != scorer:
        raise StorageError(
            f"{uri} was there already, made by another scorer ({made_by[:12] or 'none'}; this job's is {scorer[:12]}): "
            "a worker of another job may still be alive. Delete it and run the same command again."
        )
    return counts
