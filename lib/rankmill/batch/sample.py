"""How many tokens an input has, judged from a sample of it through the model's own encoder."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rankmill.batch.plan import Piece, Plan
from rankmill.batch.read import Source
from rankmill.scoring.model import Encoder
from rankmill.tables.canonical import split_rejected

_PLACES = 32  # of the input, evenly spaced: neighbours are alike
_PAIRS = 64  # read in each


@dataclass(frozen=True, slots=True)
class Sample:
    """What the sampled pairs are like."""

    pairs: int
    """Pairs that were tokenised."""
    rejected: int
    """Pairs among those read that cannot be scored."""
    mean_tokens: float
    """Per pair, special tokens included; of all chunks where long documents are read in chunks."""
    p95_tokens: float
    truncated: float
    """Share of the pairs that are cut to the model's length, from 0 to 1."""

    def tokens(self, pairs: int) -> int:
        """Tokens of so many pairs of the kind."""
        return round(self.mean_tokens * pairs)


def sample(plan: Plan, source: Source, encoder: Encoder) -> Sample:
    """Read and tokenise a few pairs in many places.

    Args:
        plan: where the queries lie.
        source: how to read them.
        encoder: of the model.

    Raises:
        InputError, StorageError: a file cannot be read.
    """
    schema = source.layout.canonical_schema()
    return measure((_start(source.rows(piece), schema) for piece in _places(plan)), encoder)


def measure(tables: Iterable[pa.Table], encoder: Encoder) -> Sample:
    """Tokenise.

    Args:
        tables: pairs in canonical form; of it, only the texts and the reason are looked at.
        encoder: of the model.
    """
    lengths, truncated, rejected = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=bool)], 0
    for table in tables:
        good, bad = split_rejected(table)
        encoded = encoder.encode(good.column("query").to_pylist(), good.column("document").to_pylist())
        lengths.append(encoded.lengths)
        truncated.append(encoded.truncated)
        rejected += len(bad)
    found = np.concatenate(lengths)
    return Sample(
        pairs=len(found),
        rejected=rejected,
        mean_tokens=float(found.mean()) if len(found) else 0.0,
        p95_tokens=float(np.percentile(found, 95)) if len(found) else 0.0,
        truncated=float(np.concatenate(truncated).mean()) if len(found) else 0.0,
    )


def _places(plan: Plan) -> Iterator[Piece]:
    """Ranges of rows to look at the starts of; a compressed file is only looked at where it starts."""
    pieces = [shard.pieces[0] for shard in plan.shards if shard.pieces]
    runs = plan.scattered
    wanted = _evenly(len(pieces) + len(runs))
    seen = set()
    for number in wanted:
        if number < len(pieces):
            piece = pieces[number]
        else:
            at = number - len(pieces)
            piece = Piece(int(runs.file[at]), int(runs.start[at]), int(runs.stop[at]), int(runs.offset[at]))
        if plan.files[piece.file].compressed:
            if piece.file in seen:
                continue
            seen.add(piece.file)
            piece = Piece(piece.file, 0, _PAIRS, 0)
        yield piece


def _evenly(count: int) -> list[int]:
    return sorted({int(place) for place in np.linspace(0, count - 1, min(count, _PLACES))}) if count else []


def _start(tables: Iterator[pa.Table], schema: pa.Schema) -> pa.Table:
    """The first pairs; no more is read than they need."""
    held = [schema.empty_table()]
    rows = 0
    for table in tables:
        held.append(table.slice(0, _PAIRS - rows))
        rows += len(held[-1])
        if rows >= _PAIRS:
            break
    return pa.concat_tables(held)
