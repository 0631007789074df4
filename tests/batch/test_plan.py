"""Shards hold whole queries, cover every row once, and are read in one pass."""

import pickle

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from rankmill.batch.group import chunks
from rankmill.batch.plan import default_shard_pairs, make_plan, read_units
from rankmill.batch.workers import choose_pool
from rankmill.settings.rerank import Columns
from rankmill.tables.locate import InputFile
from rankmill.tables.runs import Runs, join, runs_of
from rankmill.tables.schema import Layout

LAYOUT = Layout(
    nested=False,
    columns=Columns(),
    query_id_type=pa.string(),
    doc_id_type=pa.string(),
    title=False,
    retrieval_score=False,
    keep=(),
    template=(),
)

files = st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=30), min_size=1, max_size=4)


def runs(ids: list[str], batch: int = 7) -> Runs:
    """Runs of a file, found a few rows at a time, as readers do."""
    slices = range(0, len(ids), batch)
    return join(runs_of(pa.array(ids[n : n + batch]), np.ones(len(ids[n : n + batch]), np.int64), n) for n in slices)


@settings(deadline=None)
@given(files=files, shard_pairs=st.integers(1, 12))
def test_every_row_is_in_one_shard_and_every_query_too(files: list[list[str]], shard_pairs: int) -> None:
    inputs = [InputFile(f"{n}.parquet", 1, "") for n in range(len(files))]
    plan = make_plan(inputs, LAYOUT, [runs(ids) for ids in files], shard_pairs)
    shard_of: dict[tuple[int, int], int] = {}
    places = [(p.file, p.start, p.stop, s.index) for s in plan.shards for p in s.pieces]
    far = plan.scattered
    places += zip(far.file.tolist(), far.start.tolist(), far.stop.tolist(), far.shard.tolist(), strict=True)
    for file, start, stop, shard in places:
        for row in range(start, stop):
            assert (file, row) not in shard_of
            shard_of[file, row] = shard
    assert set(shard_of) == {(file, row) for file, ids in enumerate(files) for row in range(len(ids))}
    shards_of_query: dict[str, set[int]] = {}
    for (file, row), shard in shard_of.items():
        shards_of_query.setdefault(files[file][row], set()).add(shard)
    assert all(len(shards) == 1 for shards in shards_of_query.values())
    assert plan.queries == len(shards_of_query)
    sizes = {shard.index: list(shard_of.values()).count(shard.index) for shard in plan.shards}
    assert sizes == {shard.index: shard.pairs for shard in plan.shards}
    largest = max([sum(ids.count(query) for ids in files) for query in shards_of_query], default=0)
    assert max(sizes.values(), default=0) <= max(shard_pairs, largest)
    assert [shard.index for shard in plan.shards] == list(range(len(plan.shards)))


@settings(deadline=None)
@given(files=files, shard_pairs=st.integers(1, 12))
def test_contiguous_queries_cost_no_gathering(files: list[list[str]], shard_pairs: int) -> None:
    grouped = [sorted(f"{n}-{query}" for query in ids) for n, ids in enumerate(files)]
    inputs = [InputFile(f"{n}.parquet", 1, "") for n in range(len(files))]
    plan = make_plan(inputs, LAYOUT, [runs(ids) for ids in grouped], shard_pairs)
    assert len(plan.scattered) == 0
    assert all(len(shard.pieces) == 1 for shard in plan.shards)
    units = read_units(plan.shards, inputs)
    assert [shard for unit in units for shard in unit.shards] == list(plan.shards)
    assert all(len({shard.pieces[0].file for shard in unit.shards}) == 1 for unit in units)


def test_scattered_runs_cost_the_driver_a_few_bytes_each() -> None:
    """Two files with the same queries in turn: nothing lies together, so that every row is a run."""
    ids = [f"q{n}" for n in range(5000)]
    inputs = [InputFile(f"{n}.parquet", 1, "") for n in range(2)]
    plan = make_plan(inputs, LAYOUT, [runs(ids), runs(ids)], 100)
    assert len(plan.scattered) == 10_000
    assert len(pickle.dumps(plan.scattered)) < 50 * len(plan.scattered)


def test_tasks_gather_a_bounded_number_of_pairs_not_of_rows() -> None:
    """Rows of nested input hold many pairs."""
    ids = [f"q{n}" for n in range(1000)]
    hundreds = [runs_of(pa.array(ids), np.full(1000, 1000), 0)] * 2
    inputs = [InputFile("a.parquet", 1, ""), InputFile("b.jsonl.gz", 1, "")]
    plan = make_plan(inputs, LAYOUT, hundreds, 1000)
    found = chunks(plan)
    assert [chunk.index for chunk in found] == list(range(len(found)))
    pairs = [(int(chunk.runs.file[0]), int(chunk.runs.pairs.sum())) for chunk in found]
    assert [size for file, size in pairs if file == 0] == [131_000] * 7 + [83_000]
    assert sum(size for file, size in pairs if file == 1) == 1_000_000
    assert [set(chunk.runs.file.tolist()) for chunk in found] == [{file} for file, _ in pairs]


def test_a_compressed_file_is_read_by_a_few_tasks_only() -> None:
    """Each has to decompress what comes before its part."""
    ids = [f"q{n}" for n in range(1000)]
    for name, units in (("a.jsonl", 125), ("a.jsonl.gz", 8)):
        inputs = [InputFile(name, 1, "")]
        assert len(read_units(make_plan(inputs, LAYOUT, [runs(ids)], 1).shards, inputs)) == units


def test_runs_are_the_same_for_every_spelling_of_an_id() -> None:
    plain = pa.array(["a", "a", None, "b", "a"])
    spellings = [plain, plain.cast(pa.large_string()), plain.dictionary_encode(), plain.cast(pa.string_view())]
    found = [runs_of(ids, np.ones(5, np.int64), 10) for ids in spellings]
    for each in found:
        assert each.start.tolist() == [10, 13, 14], "a null id joins the run before it"
        assert each.rows.tolist() == [3, 1, 1]
        assert each.query.tolist() == found[0].query.tolist()
        assert each.query[0] == each.query[2] != each.query[1]


def test_default_size_of_shards() -> None:
    assert default_shard_pairs(100, 10_000) == 256
    assert default_shard_pairs(64_000, 64_000_000) == 1000
    assert default_shard_pairs(10**9, 10**12) == 8192
    assert default_shard_pairs(1000, 1000 << 20) == 128, "128 MiB of text at most"


def test_pools() -> None:
    laptop = choose_pool(None, None, None, cores=8, gpus=0, local=True)
    assert (laptop.min_workers, laptop.max_workers, laptop.threads, laptop.device) == (4, 4, 2, "cpu")
    small = choose_pool(None, None, None, cores=2, gpus=0, local=True)
    assert (small.max_workers, small.threads) == (2, 1)
    shared = choose_pool((2, 2), None, None, cores=8, gpus=0, local=True)
    assert (shared.max_workers, shared.threads, shared.cpus) == (2, 4, 4)
    cluster = choose_pool(None, None, None, cores=64, gpus=0, local=False)
    assert (cluster.min_workers, cluster.max_workers, cluster.threads) == (1, 64, 1)
    gpus = choose_pool(None, None, None, cores=64, gpus=8, local=False)
    assert (gpus.max_workers, gpus.gpus, gpus.cpus, gpus.device, gpus.threads) == (8, 1, 0, "cuda", None)
    halves = choose_pool((1, 16), 0.5, None, cores=64, gpus=8, local=False)
    assert (halves.min_workers, halves.max_workers, halves.gpus) == (1, 16, 0.5)
    assert choose_pool(None, 0, None, cores=4, gpus=1, local=True).device == "cpu"
