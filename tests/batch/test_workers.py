"""How many workers, and on what."""

import pytest

from rankmill.batch.workers import Pool, choose_pool
from rankmill.errors import UsageError


def test_on_this_machine() -> None:
    assert choose_pool(None, None, None, cores=8, gpus=0, local=True) == Pool(
        4, 4, cpus=2, gpus=0, device="cpu", threads=2
    )
    assert choose_pool(None, None, None, cores=1, gpus=0, local=True) == Pool(
        1, 1, cpus=1, gpus=0, device="cpu", threads=1
    )
    two = choose_pool((2, 2), None, None, cores=8, gpus=0, local=True)
    assert (two.max_workers, two.threads) == (2, 4)
    gpus = Pool(1, 2, cpus=0, gpus=1.0, device="cuda", threads=None)
    assert choose_pool(None, None, None, cores=8, gpus=2, local=True) == gpus
    assert choose_pool(None, 0, None, cores=8, gpus=2, local=True).device == "cpu"


def test_no_more_workers_than_shards() -> None:
    pool = Pool(2, 8, cpus=1, gpus=0, device="cpu", threads=1)
    assert pool.for_shards(9) == pool
    assert pool.for_shards(3) == Pool(2, 3, cpus=1, gpus=0, device="cpu", threads=1)
    assert pool.for_shards(1) == pool.for_shards(0) == Pool(1, 1, cpus=1, gpus=0, device="cpu", threads=1)


def test_on_a_fixed_cluster() -> None:
    assert choose_pool(None, None, None, cores=15, gpus=0, local=False) == Pool(1, 15, 1, 0, "cpu", 1)
    assert choose_pool(None, 0.5, None, cores=15, gpus=2, local=False).max_workers == 4


@pytest.mark.parametrize(
    ("workers", "gpus_per_worker", "gpus"),
    [
        (None, None, 0),  # no machine is there yet: this would be one CPU thread of a GPU machine
        (None, 1, 0),  # one worker, for ever
        (None, 0, 0),
        ((1, 8), None, 0),
        (None, None, 2),  # two workers where eight could be had
    ],
)
def test_an_elastic_cluster_must_be_told(
    workers: tuple[int, int] | None, gpus_per_worker: float | None, gpus: float
) -> None:
    with pytest.raises(UsageError, match="--gpus-per-worker 1 --workers 1,8 for up to 8 GPUs, or --gpus-per-worker 0"):
        choose_pool(workers, gpus_per_worker, None, cores=1, gpus=gpus, local=False, elastic=True)


def test_an_elastic_cluster_that_was_told() -> None:
    pool = Pool(1, 8, cpus=0, gpus=1, device="cuda", threads=None)
    assert choose_pool((1, 8), 1, None, cores=1, gpus=0, local=False, elastic=True) == pool
    assert choose_pool((1, 8), None, None, cores=1, gpus=2, local=False, elastic=True) == pool
    assert choose_pool((1, 8), 0, None, cores=1, gpus=0, local=False, elastic=True) == Pool(1, 8, 1, 0, "cpu", 1)
