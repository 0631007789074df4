"""What is known of a shard once its part is written: the commit record, and what progress and totals are made of."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

import orjson
import pyarrow as pa


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a part says of itself, in its own metadata: whoever finds it there knows all but how long it took."""

    shard: int
    queries: int
    pairs_in: int
    """Pairs read: scored and rejected."""
    rejected: int
    rows_out: int
    """Pairs in the part; fewer than were scored when --top-k cuts."""
    truncated: int
    """Scored pairs of which the query or the document was cut."""
    duplicates: int
    """Scored pairs whose (query_id, doc_id) came before in the shard."""
    unlike_queries: int
    """Queries with scored pairs of which not all have the same query text."""
    first_unlike_query: str
    """Id of the first of those; empty where there is none."""
    tokens: int
    rejected_part: str
    """Key of the file of rejected rows; empty when there are none."""
    rejected_bytes: int
    rejected_sha256: str

    def to_json(self) -> bytes:
        """JSON of all fields."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt(Counts):
    """One finished shard: the commit record."""

    scoring_seconds: float
    reused: int = 0
    """Pairs that have the score of an earlier job."""
    repeated: int = 0
    """Pairs that have the score of a pair of the same texts, in the shard or in one that was scored before."""
    scores_part: str = ""
    """Key of the file of scores for later jobs; empty where none are kept."""
    scores_bytes: int = 0
    scores_sha256: str = ""
    part: str
    """Key of the part file."""
    part_bytes: int
    part_sha256: str
    footer_sha256: str
    """Of the part's Parquet footer, which can be fetched without the rest."""
    committed_at: float
    """Seconds since 1970, by the clock of the machine that wrote the part."""

    @property
    def scored(self) -> int:
        """Pairs that got a score."""
        return self.pairs_in - self.rejected

    def to_row(self) -> pa.Table:
        """One row for Ray Data."""
        return pa.table({name: [value] for name, value in asdict(self).items()})

    @classmethod
    def from_json(cls, body: bytes) -> "Receipt":
        """Read a commit record; ValueError when it is none."""
        values = orjson.loads(body)
        try:
            return cls(**{field.name: values[field.name] for field in fields(cls)})
        except (KeyError, TypeError) as error:
            raise ValueError(f"it lacks {error}") from error


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over shards."""

    shards: int = 0
    queries: int = 0
    pairs_in: int = 0
    rejected: int = 0
    rows_out: int = 0
    truncated: int = 0
    duplicates: int = 0
    unlike_queries: int = 0
    first_unlike_query: str = ""
    tokens: int = 0
    reused: int = 0
    repeated: int = 0
    scoring_seconds: float = 0.0

    def plus(self, receipt: Receipt) -> "Totals":
        """Add one shard."""
        added = {
            field.name: getattr(self, field.name) + getattr(receipt, field.name)
            for field in fields(self)
            if field.name not in {"shards", "first_unlike_query"}
        }
        first = self.first_unlike_query or receipt.first_unlike_query
        return Totals(shards=self.shards + 1, first_unlike_query=first, **added)

    @property
    def scored(self) -> int:
        """Pairs that got a score."""
        return self.pairs_in - self.rejected


def total(receipts: Iterable[Receipt]) -> Totals:
    """Sum receipts."""
    totals = Totals()
    for receipt in receipts:
        totals = totals.plus(receipt)
    return totals
