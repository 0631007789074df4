"""Score a shard, but for the pairs that the run's memory knows or that other shards are being scored with.

A worker scores what is its own first, tells of it, and only then looks for what was in other hands: nobody waits for
somebody who waits. It waits no longer than it took itself, or than shards take: who has those pairs may have died, and
then they are scored here. So a pair is scored twice after a death or where one shard takes much longer than the others,
and else once.

A logit that is remembered is the one that was found first; that another batch could have led to another in its last
places is no more than two runs of a job may differ anyway.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rankmill.batch.freight import EncodedShard, ScoredShard, without
from rankmill.batch.memory import ENTRY, Answer, Entries, Remembers
from rankmill.batch.repeats import with_recalled
from rankmill.batch.score_and_write import Turn
from rankmill.batch.score_files import RESULTS
from rankmill.tables.schema import BEST_CHUNK

Score = Callable[[EncodedShard, pa.Table], pa.Table]
"""Scores a shard, which it gets both unpacked and as a row."""

_NONE = -1  # in the place of characters, where no chunk was the best
_OF_A_PASS = (("logit", pa.float32()), *((name, pa.int32()) for name in BEST_CHUNK))
_ENCODED = ("length", "document_start", "truncated", "chunks")  # what tokenising adds to a pair
_NOBODY = np.zeros(0, np.int64)
_FIRST_LOOK, _LAST_LOOK = 0.05, 1.0
"""Seconds between looks at what is in other hands; each is twice the one before, up to the last."""


def score_once(row: pa.Table, memory: Remembers, score: Score, turn: Turn | None = None) -> pa.Table:
    """Score what of a shard nobody else has scored; all of a shard in lists, of which nobody is told.

    Args:
        row: an encoded shard.
        memory: of the run; it is told of the pairs that are scored.
        score: is called once at least, perhaps for no pair.
        turn: is held while scoring, and not while waiting.

    Returns:
        The scored shard as a row, the pairs that were remembered among those known.
    """
    whole = EncodedShard.from_row(row)
    turn = turn or nullcontext()
    if whole.listwise:  # what is known of a pair elsewhere is not what it gets in this list
        with turn:
            return score(whole, row)
    with turn:
        began = time.monotonic()
        answer = _ask(memory, whole)
        if not len(answer.known) and not len(answer.elsewhere):
            return _told(score(whole, row), memory)
        mine, recalled, rest = divide(whole, answer)
        scored, found = [ScoredShard.from_row(_told(score(mine, mine.to_row()), memory))], [recalled]
        patience = max(answer.patience, time.monotonic() - began)
    for mine, recalled in _awaited(rest, memory, patience):
        found.append(recalled)
        if len(mine.pairs):
            with turn:
                scored.append(ScoredShard.from_row(_told(score(mine, mine.to_row()), memory)))
    return with_recalled(_together(scored), pa.concat_tables(found)).to_row()


def divide(shard: EncodedShard, answer: Answer) -> tuple[EncodedShard, pa.Table, EncodedShard]:
    """Divide a shard by what is known of its pairs.

    Returns:
        What is to be scored, with all that is no pair; the rows that are remembered with `RESULTS`, as those of
        `EncodedShard.known`; and the pairs in other hands alone.
    """
    rows = shard.pairs.take(answer.known)
    for name, kind in _OF_A_PASS:
        values = np.ascontiguousarray(answer.entries[name])
        rows = rows.append_column(name, pa.array(values, kind, mask=values == _NONE if name in BEST_CHUNK else None))
    names = [name for name in shard.pairs.column_names if name not in _ENCODED]
    everything = np.arange(len(shard.pairs))
    mine = _left(shard, np.concatenate([answer.known, answer.elsewhere]))
    rest = _left(shard, np.delete(everything, answer.elsewhere)).piece(0, len(answer.elsewhere))
    return mine, rows.select([*names, *RESULTS]).combine_chunks(), rest


def entries_of(pairs: pa.Table) -> Entries:
    """What was found out about the pairs of a scored shard, or of a file of scores."""
    entries = np.zeros(len(pairs), ENTRY)
    entries["low"], entries["high"] = keys_of(pairs).T
    entries["logit"] = pairs.column("logit").to_numpy()
    for name in BEST_CHUNK:
        entries[name] = pairs.column(name).fill_null(_NONE).to_numpy() if name in pairs.column_names else _NONE
    return entries


def keys_of(pairs: pa.Table) -> NDArray[np.uint64]:
    """The two halves of each `pair_key`, shape (n, 2); none is null."""
    if not len(pairs):
        return np.zeros((0, 2), np.uint64)
    keys = pairs.column("pair_key").combine_chunks()
    halves = np.frombuffer(keys.buffers()[1], dtype="<u8").reshape(-1, 2)
    return halves[keys.offset : keys.offset + len(keys)]


def _awaited(rest: EncodedShard, memory: Remembers, patience: float) -> Iterator[tuple[EncodedShard, pa.Table]]:
    """Yield what of the pairs in other hands is to be scored here after all, and what was found out, till all are."""
    deadline, pause = time.monotonic() + patience, _FIRST_LOOK
    while len(rest.pairs):
        mine, recalled, rest = divide(rest, _ask(memory, rest, alone=time.monotonic() > deadline))
        if len(mine.pairs) or len(recalled):
            yield mine, recalled
        else:
            time.sleep(pause)
            pause = min(2 * pause, _LAST_LOOK)


def _ask(memory: Remembers, shard: EncodedShard, *, alone: bool = False) -> Answer:
    """What the memory knows of a shard; `alone`: as if nobody else were at work."""
    if not len(shard.pairs):
        return Answer(_NOBODY, np.zeros(0, ENTRY), _NOBODY)
    answer = memory.ask(keys_of(shard.pairs), shard.index)
    return Answer(answer.known, answer.entries, _NOBODY) if alone else answer


def _told(scored: pa.Table, memory: Remembers) -> pa.Table:
    """The scored row, after the memory was told of it; also where nothing came of the pairs that were claimed."""
    shard = ScoredShard.from_row(scored)
    memory.remember(entries_of(shard.pairs), shard.index)
    return scored


def _left(shard: EncodedShard, dropped: NDArray[np.int64]) -> EncodedShard:
    """The shard without some pairs."""
    if not len(dropped):
        return shard
    tokens = without(shard.encoded_pairs(), dropped).token_ids
    pairs = shard.pairs.take(np.delete(np.arange(len(shard.pairs)), dropped)).combine_chunks()
    return EncodedShard(shard.index, pairs, shard.rejected, tokens, shard.known)


def _together(pieces: list[ScoredShard]) -> ScoredShard:
    """One shard of several; the first has all that is no pair."""
    first = pieces[0]
    return ScoredShard(
        first.index,
        pa.concat_tables([piece.pairs for piece in pieces]),
        pa.concat_tables([piece.rejected for piece in pieces]),
        sum(piece.scoring_seconds for piece in pieces),
        first.known,
    )
