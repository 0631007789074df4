"""Encode and score, guarded: a row that ends its process, hangs in it, or makes the model raise costs no other row.

Of a scorer of lists it costs those of its list, which are scored together or not at all.

The forward pass always runs in a process of its own. Tokenising runs in the task's own process, because what dies in it
is rare, and moves to another only for a shard that ended two processes on this machine.

A process that gives no sign of life for the time that is allowed is killed. To find the row, a dozen pieces may have to
hang once more, each for less: a 32nd of that time, or four times the longest silence that came to a good end, if that
is more. A piece that is suspected for being slow is only cut further. No row is rejected that did not hang alone for
all of the time.
"""

import faulthandler
import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rankmill.batch import stacks
from rankmill.batch.freight import EncodedShard, ScoredShard
from rankmill.batch.memory import Memory, Remembers
from rankmill.batch.salvage import MOST_LOST, Lost, PieceFailedError, salvage
from rankmill.batch.score_and_write import Turn
from rankmill.batch.score_once import score_once
from rankmill.batch.scratch import Scratch
from rankmill.batch.stage_process import StageDiedError, StageHungError, StageProcess
from rankmill.batch.stages import Score, Tokenise, encode_here, encoder_of, reject, unscored
from rankmill.errors import RankmillError, TooManyRejectedError
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.remote import is_url

_log = logging.getLogger("rankmill")

_DEATHS = 2
"""Of a whole shard or of a single row: the first may be an accident, of which a row is not to be accused."""
_SUSPECTS_SHARE = 1 / 32
_SILENCES = 4
_LEAST_LIMIT = 1.0
_STDERR = 2  # Ray puts other objects into the place of sys.stderr
_CALLS = 4
_PASSING = (ConnectionError, TimeoutError)
"""What a model that asks others raises when they do not answer: nothing that a row could help."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Some rows of a shard, all of them included. What cannot be cut is a unit: a row, or a list of them."""

    name: str
    start: int
    """In units, as are the next two."""
    stop: int
    """Exclusive."""
    size: int
    """Of the shard."""

    @property
    def whole(self) -> bool:
        """Whether it is all of the shard."""
        return (self.start, self.stop) == (0, self.size)

    @property
    def single(self) -> bool:
        """Whether it cannot be cut."""
        return self.stop - self.start == 1

    @property
    def deaths(self) -> int:
        """How many processes it may end before it is cut in two, or, a single row, rejected."""
        return _DEATHS if self.whole or self.single else 1

    @property
    def hangs(self) -> int:
        """How often it may hang before that: waiting is dear, and what is cut hangs again."""
        return _DEATHS if self.whole and self.single else 1


class Guard:
    """Runs pieces of shards through a stage's process and tells failures that a piece is to blame for from others.

    Args:
        process: of the stage.
        scratch: remembers deaths, those of this process included.
        limit: seconds that the stage may go without a sign of life; 0 for ever.
    """

    def __init__(self, process: StageProcess, scratch: Scratch, limit: float) -> None:
        self._process = process
        self._scratch = scratch
        self._limit = limit

    def run(self, piece: Piece, table: pa.Table) -> pa.Table:
        """Work on a piece; after a death again, until as many processes as it may end died of it.

        Raises:
            PieceFailedError: that many died, or the model raised.
            ModelError: the model cannot be loaded any more.
            RankmillError: as the stage raised it.
            ConnectionError, TimeoutError: whoever the model asks does not answer, time after time.
        """
        reason, how = "worker_crash", "the process that had read it died"
        hangs = 0
        while self._scratch.deaths(piece.name) < piece.deaths and hangs < piece.hangs:
            self._process.start()
            limit = self._limit_of(piece)
            try:
                with self._scratch.attempt(piece.name):
                    return self._patiently(table, limit)
            except StageDiedError as death:
                hung = isinstance(death, StageHungError)
                hangs += hung
                reason, how = "no_answer" if hung else "worker_crash", str(death)
                _log.warning("%s%s at work on %s", how, " (--forward-timeout)" if hung else "", piece.name)
            except (RankmillError, *_PASSING):
                raise
            except Exception as error:
                detail = f"{type(error).__name__}: {error}"[:500]
                raise PieceFailedError("model_error", detail) from error
        raise PieceFailedError(reason, how)

    def _limit_of(self, piece: Piece) -> float:
        if piece.whole or piece.single:
            return self._limit
        return min(
            self._limit, max(_LEAST_LIMIT, self._limit * _SUSPECTS_SHARE, _SILENCES * self._process.longest_silence)
        )

    def _patiently(self, table: pa.Table, limit: float) -> pa.Table:
        for call in range(1, _CALLS + 1):
            try:
                return self._process.run(table, limit)
            except _PASSING as error:
                if call == _CALLS:
                    raise
                _log.warning("%s: %s; trying again", type(error).__name__, error)
                time.sleep(random.uniform(0.5, 1.0) * 2**call)  # noqa: S311 - no secret
        raise AssertionError("the last call returns or raises. This is a bug.")


class GuardedScore:
    """Runs the model in a process of its own; one instance per worker of the actor pool.

    Args:
        options: which model, and how to run it.
        fingerprint: of the scorer that the job was planned with.
        scratch: of the run.
        memory: that the workers of the run share; None for one of its own.
        forward_timeout: seconds that a forward pass may take; 0 for ever.

    Raises:
        ModelError: the model cannot be loaded, or this machine holds another copy of it.
    """

    def __init__(
        self,
        options: ScorerOptions,
        fingerprint: str,
        scratch: Scratch,
        memory: Remembers | None,
        forward_timeout: float = 0.0,
    ) -> None:
        stacks.register(scratch.stacks)
        process = StageProcess(Score, (options, fingerprint), scratch.stacks)
        process.start()
        self._memory = Memory() if memory is None else memory
        # whoever asks an endpoint has limits of his own for its answers, and blames no row for them
        self._guard = Guard(process, scratch, 0.0 if is_url(options.model) else forward_timeout)

    def __call__(self, row: pa.Table, turn: Turn) -> pa.Table:
        """Take one encoded shard, return it scored; rows that no process gets through are rejected."""
        return score_once(row, self._memory, self._score, turn)

    def _score(self, shard: EncodedShard, row: pa.Table) -> pa.Table:
        edges, positions = shard.edges, shard.pairs.column("position").to_numpy()
        size = len(edges) - 1

        def attempt(start: int, stop: int) -> pa.Table:
            # by places that are the same in every part of the shard: what is known of the others takes pairs out
            places = f"{positions[edges[start]]}-{positions[edges[stop] - 1] + 1}" if size else "0-0"
            piece = Piece(f"score-{shard.index}-{places}", start, stop, size)
            return self._guard.run(piece, row if piece.whole else shard.piece(edges[start], edges[stop]).to_row())

        rows, lost = _salvaged(shard.index, size, attempt)
        if len(rows) == 1 and not lost:
            return rows[0]
        pieces = [ScoredShard.from_row(piece) for piece in rows] or [unscored(shard)]
        blamed = [_blamed(shard.pairs, one, shard.rejected.schema, edges) for one in lost]
        pairs = pa.concat_tables([piece.pairs for piece in pieces])
        return ScoredShard(
            shard.index,
            pairs.sort_by("position") if shard.listwise else pairs,
            pa.concat_tables([shard.rejected, *(piece.rejected for piece in pieces), *blamed]),
            sum(piece.scoring_seconds for piece in pieces),
            shard.known,
        ).to_row()


@dataclass(frozen=True, slots=True)
class GuardedEncoding:
    """Tokenises a shard's canonical table, here or, where that ended two processes or raised, piece by piece elsewhere.

    What is missing from the rejected rows here as in `EncodedShard`: the texts.
    """

    scratch: Scratch
    limit: float = 0.0
    """Seconds that it may take to tokenise a shard; 0 for ever."""

    def __call__(self, index: int, table: pa.Table, options: ScorerOptions) -> EncodedShard:
        """Tokenise; rows that end the process or make the tokenizer raise are rejected."""
        stacks.register(self.scratch.stacks)
        piece = f"encode-{index}-0-{len(table)}"
        if self.scratch.deaths(piece) < _DEATHS:
            try:
                with self.scratch.attempt(piece):
                    encoder_of(options)  # loads it, which may take its time
                    with _ended_after(self.limit):
                        return encode_here(index, table, options)
            except RankmillError:
                raise
            except Exception as error:  # noqa: BLE001 - raised again in the other process, if it is no row's fault
                _log.warning("%s: %s while shard %d was tokenised; looking for the row", type(error), error, index)
        with closing(StageProcess(Tokenise, (options,), self.scratch.stacks)) as process:
            return self._in_pieces(index, table, Guard(process, self.scratch, self.limit), options)

    def _in_pieces(self, index: int, table: pa.Table, guard: Guard, options: ScorerOptions) -> EncodedShard:
        def attempt(start: int, stop: int) -> pa.Table:
            piece = Piece(f"encode-{index}-{start}-{stop}", start, stop, len(table))
            return guard.run(piece, table.slice(start, stop - start))

        rows, lost = _salvaged(index, len(table), attempt)
        pieces = [EncodedShard.from_row(piece) for piece in rows] or [encode_here(index, table.slice(0, 0), options)]
        edges = np.arange(len(table) + 1)
        blamed = [_blamed(table, one, pieces[0].rejected.schema, edges) for one in lost]
        return EncodedShard(
            index,
            pa.concat_tables([piece.pairs for piece in pieces]),
            pa.concat_tables([*(piece.rejected for piece in pieces), *blamed]),
            np.concatenate([piece.token_ids for piece in pieces]),
        )


@contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """End this process, its stacks in the log, when a `with` block takes longer; also one that hangs in C."""
    if not seconds:
        yield
        return
    faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _salvaged(index: int, size: int, attempt: Callable[[int, int], pa.Table]) -> tuple[list[pa.Table], list[Lost]]:
    """`salvage`, with an error for people where too many rows fail."""
    try:
        return salvage(size, attempt)
    except PieceFailedError as failure:
        if failure.__cause__ is not None:
            raise failure.__cause__ from None  # the model's own error says more than we can
        raise TooManyRejectedError(
            f"Shard {index} has more than {MOST_LOST} rows, or lists, of which each ends the process that works on it "
            f"({failure.args[1]}). That is a fault of the model or the machine, not of so many; its trace is in "
            "the logs of Ray's workers. Mend it and run the same command again: finished shards are kept."
        ) from failure


def _blamed(table: pa.Table, lost: Lost, schema: pa.Schema, edges: NDArray[np.int64]) -> pa.Table:
    start, stop = edges[lost.unit : lost.unit + 2].tolist()
    rows = f"row {start}" if stop - start == 1 else f"a list, rows {start} to {stop - 1},"
    _log.warning("%s of the shard is rejected: %s", rows, lost.detail)
    detail = (
        lost.detail if stop - start == 1 else f"{lost.detail} (a list of {stop - start} documents, scored together)"
    )
    return reject(table.slice(start, stop - start), schema, lost.reason, detail)
