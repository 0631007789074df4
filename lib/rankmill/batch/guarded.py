"""Encode and score, guarded: a row that ends its process, or makes the model raise, costs that row and no other.

The forward pass always runs in a process of its own. Tokenising runs in the task's own process, because what dies in it
is rare, and moves to another only for a shard that ended two processes on this machine.
"""

import logging
import random
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rankmill.batch import stacks
from rankmill.batch.freight import EncodedShard, ScoredShard
from rankmill.batch.repeats import with_recalled
from rankmill.batch.salvage import MOST_LOST, Lost, PieceFailedError, salvage
from rankmill.batch.scratch import Scratch
from rankmill.batch.stage_process import StageDiedError, StageProcess
from rankmill.batch.stages import Score, Tokenise, encode_here, reject, unscored
from rankmill.errors import RankmillError, TooManyRejectedError
from rankmill.scoring.options import ScorerOptions

_log = logging.getLogger("rankmill")

_DEATHS = 2
"""Of a whole shard or of a single row: the first may be an accident, of which a row is not to be accused."""
_CALLS = 4
_PASSING = (ConnectionError, TimeoutError)
"""What a model that asks others raises when they do not answer: nothing that a row could help."""


class Guard:
    """Runs pieces of shards through a stage's process and tells failures that a piece is to blame for from others.

    Args:
        process: of the stage.
        scratch: remembers deaths, those of this process included.
    """

    def __init__(self, process: StageProcess, scratch: Scratch) -> None:
        self._process = process
        self._scratch = scratch

    def run(self, piece: str, deaths: int, table: pa.Table) -> pa.Table:
        """Work on a piece; after a death again, until as many processes as `deaths` died of it.

        Raises:
            PieceFailedError: that many died, or the model raised.
            ModelError: the model cannot be loaded any more.
            RankmillError: as the stage raised it.
            ConnectionError, TimeoutError: whoever the model asks does not answer, time after time.
        """
        how = "the process that had read it died"
        while self._scratch.deaths(piece) < deaths:
            self._process.start()
            try:
                with self._scratch.attempt(piece):
                    return self._patiently(table)
            except StageDiedError as death:
                how = str(death)
                _log.warning("%s at work on %s", how, piece)
            except (RankmillError, *_PASSING):
                raise
            except Exception as error:
                detail = f"{type(error).__name__}: {error}"[:500]
                raise PieceFailedError("model_error", detail) from error
        raise PieceFailedError("worker_crash", how)

    def _patiently(self, table: pa.Table) -> pa.Table:
        for call in range(1, _CALLS + 1):
            try:
                return self._process.run(table)
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

    Raises:
        ModelError: the model cannot be loaded, or this machine holds another copy of it.
    """

    def __init__(self, options: ScorerOptions, fingerprint: str, scratch: Scratch) -> None:
        stacks.register(scratch.stacks)
        process = StageProcess(Score, (options, fingerprint), scratch.stacks)
        process.start()
        self._guard = Guard(process, scratch)

    def __call__(self, row: pa.Table) -> pa.Table:
        """Take one encoded shard, return it scored; rows that end the process or make the model raise are rejected."""
        shard = EncodedShard.from_row(row)
        size = len(shard.pairs)

        def attempt(start: int, stop: int) -> pa.Table:
            piece = row if (start, stop) == (0, size) else shard.piece(start, stop).to_row()
            return self._guard.run(f"score-{shard.index}-{start}-{stop}", _deaths(start, stop, size), piece)

        rows, lost = _salvaged(shard.index, size, attempt)
        if len(rows) == 1 and not lost:
            return rows[0]
        pieces = [ScoredShard.from_row(piece) for piece in rows] or [unscored(shard)]
        blamed = [_blamed(shard.pairs, one, shard.rejected.schema) for one in lost]
        whole = ScoredShard(
            shard.index,
            pa.concat_tables([piece.pairs for piece in pieces]),
            pa.concat_tables([shard.rejected, *(piece.rejected for piece in pieces), *blamed]),
            sum(piece.scoring_seconds for piece in pieces),
            shard.known,
        )
        return with_recalled(whole, *(piece.known for piece in pieces)).to_row()


@dataclass(frozen=True, slots=True)
class GuardedEncoding:
    """Tokenises a shard's canonical table, here or, where that ended two processes or raised, piece by piece elsewhere.

    What is missing from the rejected rows here as in `EncodedShard`: the texts.
    """

    scratch: Scratch

    def __call__(self, index: int, table: pa.Table, options: ScorerOptions) -> EncodedShard:
        """Tokenise; rows that end the process or make the tokenizer raise are rejected."""
        stacks.register(self.scratch.stacks)
        piece = f"encode-{index}-0-{len(table)}"
        if self.scratch.deaths(piece) < _DEATHS:
            try:
                with self.scratch.attempt(piece):
                    return encode_here(index, table, options)
            except RankmillError:
                raise
            except Exception as error:  # noqa: BLE001 - raised again in the other process, if it is no row's fault
                _log.warning("%s: %s while shard %d was tokenised; looking for the row", type(error), error, index)
        with closing(StageProcess(Tokenise, (options,), self.scratch.stacks)) as process:
            return self._in_pieces(index, table, Guard(process, self.scratch), options)

    def _in_pieces(self, index: int, table: pa.Table, guard: Guard, options: ScorerOptions) -> EncodedShard:
        def attempt(start: int, stop: int) -> pa.Table:
            piece = f"encode-{index}-{start}-{stop}"
            return guard.run(piece, _deaths(start, stop, len(table)), table.slice(start, stop - start))

        rows, lost = _salvaged(index, len(table), attempt)
        pieces = [EncodedShard.from_row(piece) for piece in rows] or [encode_here(index, table.slice(0, 0), options)]
        blamed = [_blamed(table, one, pieces[0].rejected.schema) for one in lost]
        return EncodedShard(
            index,
            pa.concat_tables([piece.pairs for piece in pieces]),
            pa.concat_tables([*(piece.rejected for piece in pieces), *blamed]),
            np.concatenate([piece.token_ids for piece in pieces]),
        )


def _deaths(start: int, stop: int, size: int) -> int:
    """How many processes a piece may end before it is cut in two, or, a single row, rejected."""
    return _DEATHS if (start, stop) == (0, size) or stop - start == 1 else 1


def _salvaged(index: int, size: int, attempt: Callable[[int, int], pa.Table]) -> tuple[list[pa.Table], list[Lost]]:
    """`salvage`, with an error for people where too many rows fail."""
    try:
        return salvage(size, attempt)
    except PieceFailedError as failure:
        if failure.__cause__ is not None:
            raise failure.__cause__ from None  # the model's own error says more than we can
        raise TooManyRejectedError(
            f"Shard {index} has more than {MOST_LOST} rows of which each ends the process that works on it "
            f"({failure.args[1]}). That is a fault of the model or the machine, not of so many rows; its trace is in "
            "the logs of Ray's workers. Mend it and run the same command again: finished shards are kept."
        ) from failure


def _blamed(table: pa.Table, lost: Lost, schema: pa.Schema) -> pa.Table:
    _log.warning("row %d of the shard is rejected: %s", lost.row, lost.detail)
    return reject(table.slice(lost.row, 1), schema, lost.reason, lost.detail)
