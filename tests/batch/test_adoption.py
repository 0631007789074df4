"""A part that another attempt wrote first: whose work is taken over, and whose is not."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from rankmill.batch.output import finished_shards
from rankmill.batch.score_files import with_keys
from rankmill.batch.stages import write_shard
from rankmill.errors import StorageError
from rankmill.storage.store import Store
from rankmill.tables.canonical import unread
from tests.batch.test_commit_protocol import LAYOUT, OPTIONS, PAIRS, scored


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An output with a part whose worker died before it could commit it."""
    store = Store(str(tmp_path))
    write_shard(scored(0, run=1), store, OPTIONS)
    (tmp_path / "_rankmill" / "commits" / "000000.json").unlink()
    return store


def test_a_part_of_the_same_scorer_is_adopted(store: Store) -> None:
    part = store.read("part-000000.parquet")
    receipt = write_shard(scored(0, run=2), store, OPTIONS)
    assert store.read(receipt.part) == part
    assert finished_shards(store) == {0: receipt}


@pytest.mark.parametrize("lost", [0, 1])
def test_scores_are_kept_beside_an_adopted_part_only_if_they_are_of_its_pairs(lost: int, store: Store) -> None:
    """An attempt that had to reject other rows has scores of other pairs."""
    shard = scored(0, run=2)
    texts = pa.table({"query": ["fox"] * PAIRS, "document": [f"dog {n}" for n in range(PAIRS)]})
    keyed = with_keys(texts.append_column("reason", pa.nulls(PAIRS, pa.string())))
    pairs = shard.pairs.drop_columns(["query_key"])
    pairs = pairs.append_column("query_key", keyed["query_key"]).append_column("pair_key", keyed["pair_key"])
    unscorable = unread(LAYOUT, 0, 0, lost, "damaged_rows", "")
    mine = replace(shard, pairs=pairs.slice(lost), rejected=unscorable.select(shard.rejected.column_names))
    receipt = write_shard(mine, store, OPTIONS, keep_scores=True)
    assert (receipt.rejected, receipt.scored) == (0, PAIRS)
    assert bool(receipt.scores_part) == (lost == 0)


def test_a_part_of_another_scorer_is_refused_and_never_committed(store: Store) -> None:
    with pytest.raises(StorageError) as refused:
        write_shard(scored(0, run=2), store, replace(OPTIONS, fingerprint="other"))
    assert "part-000000.parquet was there already, made by another scorer (scorer; this job's is other)" in str(
        refused.value
    )
    assert finished_shards(store) == {}
