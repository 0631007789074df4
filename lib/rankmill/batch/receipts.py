"""What is known of a shard once its part is written: the commit record, and what progress and totals are made of."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields

import orjson
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Receipt:
    """Counts of one finished shard."""

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
    tokens: int
    scoring_seconds: float
    part: str
    """Key of the part file."""
    part_bytes: int
    part_sha256: str

    def to_row(self) -> pa.Table:
        """One row for Ray Data."""
        return pa.table({name: [value] for name, value in asdict(self).items()})

    def to_json(self) -> bytes:
        """The commit record."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)

    @classmethod
    def from_json(cls, body: bytes) -> "Receipt":
        """Read a commit record."""
        values = orjson.loads(body)
        return cls(**{field.name: values[field.name] for field in fields(cls)})


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
    tokens: int = 0
    scoring_seconds: float = 0.0

    def plus(self, receipt: Receipt) -> "Totals":
        """Add one shard."""
        added = {
            field.name: getattr(self, field.name) + getattr(receipt, field.name)
            for field in fields(self)
            if field.name != "shards"
        }
        return Totals(shards=self.shards + 1, **added)

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
