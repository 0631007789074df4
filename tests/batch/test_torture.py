"""Jobs on several machines from bucket to bucket, while one request in twelve fails and processes are killed at random.

`pytest tests/batch/test_torture.py --torture-jobs 50 --torture-seed 7`: the seed of a run is printed, and decides what
is killed after how many commits and what happens to which request; only the timing is the machine's own.
"""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pytest

from rankmill.batch import output
from rankmill.batch.recorded import read
from rankmill.batch.verify import verify
from rankmill.cli.main import main
from rankmill.storage.store import Store
from tests.batch.conftest import Row, write_parquet
from tests.batch.jobs import read_rankings, run_job
from tests.batch.ray_cluster import RayCluster, running_cluster
from tests.batch.reader import polled
from tests.conftest import S3Bucket
from tests.fault_proxy import FaultProxy, running_fault_proxy
from tests.s3_server import s3_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]

SCORER = "python:tests.batch.crashing_scorers:score"
FAULT_PROBABILITY = 0.08
VICTIMS = ("driver", "worker", "machine")
_SECONDS = 600.0
"""For one job, however often it is killed."""


@pytest.fixture(scope="module")
def cluster(s3_endpoint: str) -> Iterator[RayCluster]:
    with running_cluster(machines=2, environment=s3_environment(s3_endpoint)) as running:
        yield running


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> Path:
    """Some 25 shards of a third of a second each, in two files."""
    many = [
        {**row, "query_id": f"{copy}-{row['query_id']}", "text": f"{row['text']} {'SLOW' if number % 2 else ''}"}
        for copy in range(2)
        for number, row in enumerate(rows)
    ]
    folder = tmp_path_factory.mktemp("source")
    write_parquet(folder / "a.parquet", many[: len(rows)])
    write_parquet(folder / "b.parquet", many[len(rows) :])
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, source: Path) -> list[Row]:
    folder = tmp_path_factory.mktemp("undisturbed")
    run_job(source, folder, SCORER)
    return read_rankings(folder)


def versioned_copy(s3: S3Bucket, source: Path) -> None:
    """The input in the bucket, which from now on remembers everything that is ever written to it."""
    client = boto3.client("s3")
    client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    for file in source.iterdir():
        client.upload_file(str(file), s3.bucket, f"in/{file.name}")
    client.close()


def written_twice(s3: S3Bucket, prefix: str) -> list[str]:
    """Keys of which the bucket has more than one version."""
    client = boto3.client("s3")
    pages = client.get_paginator("list_object_versions").paginate(Bucket=s3.bucket, Prefix=prefix)
    versions = Counter(version["Key"] for page in pages for version in page.get("Versions", ()))
    client.close()
    assert versions
    return [key for key, count in versions.items() if count > 1]


def kill(victim: str, driver: "subprocess.Popen[str]", cluster: RayCluster, dice: random.Random) -> None:
    if victim == "driver":
        driver.kill()
    elif victim == "machine":
        cluster.lose_a_machine()
    else:
        workers = cluster.processes("ray::Map")  # tasks that read, tokenise or write, and the actors that score
        if workers:
            os.kill(dice.choice(workers), signal.SIGKILL)


def tortured(number: int, seed: int, cluster: RayCluster, s3: S3Bucket, proxy: FaultProxy) -> list[int]:
    """Run one job to its end, whatever it takes; returns how its drivers ended."""
    dice = random.Random(f"{seed}-{number}")  # noqa: S311 - a test's dice
    target = Store(s3.uri(f"out-{number}"))
    victims = dice.sample(VICTIMS, len(VICTIMS)) + dice.choices(VICTIMS, k=dice.randint(0, 2))
    kills = sorted(zip(dice.choices(range(20), k=len(victims)), victims, strict=True))
    flags = ["--input", s3.uri("in"), "--output", target.uri, "--model", SCORER, "--shard-pairs", 10, "--workers", 2]
    flags += ["--gpus-per-worker", 0, "--max-rejected", 0, "--storage.endpoint", proxy.url]
    ended: list[int] = []
    deadline = time.monotonic() + _SECONDS
    while 0 not in ended:
        driver = cluster.rerank(*flags)
        try:
            while driver.poll() is None:
                assert time.monotonic() < deadline, f"job {number} of seed {seed} comes to no end: {ended}, {kills}"
                if kills and len(target.keys(output.COMMITS)) >= kills[0][0]:
                    time.sleep(dice.uniform(0, 0.5))
                    kill(kills.pop(0)[1], driver, cluster, dice)
                time.sleep(0.1)
        finally:
            driver.kill()
            _, log = driver.communicate()
        assert driver.returncode in {0, -signal.SIGKILL}, f"job {number} of seed {seed}: {log[-5000:]}"
        ended.append(driver.returncode)
    return ended


def test_nothing_that_is_killed_breaks_a_promise(
    request: pytest.FixtureRequest,
    capfd: pytest.CaptureFixture[str],
    cluster: RayCluster,
    source: Path,
    undisturbed: list[Row],
    s3: S3Bucket,
) -> None:
    """F1, F2, F3, F5, F6, F7, F20: drivers, workers and machines, at random moments, in a storm of faults."""
    jobs: int = request.config.getoption("--torture-jobs")
    seed: int | None = request.config.getoption("--torture-seed")
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    versioned_copy(s3, source)
    with capfd.disabled():
        print(f"\ntorture: {jobs} jobs, --torture-seed {seed}", flush=True)  # noqa: T201 - to run it again
    for number in range(jobs):
        target = s3.uri(f"out-{number}")
        storm = FaultProxy(s3.endpoint, probability=FAULT_PROBABILITY, seed=seed + number)
        with running_fault_proxy(storm) as proxy, polled(target, s3.endpoint) as reader:
            began = time.monotonic()
            ended = tortured(number, seed, cluster, s3, proxy)
            seconds = time.monotonic() - began
        assert verify(read(Store(target)), deep=True).whole, f"job {number} of seed {seed}"
        assert read_rankings(target) == undisturbed, f"job {number} of seed {seed}"
        once = (f"out-{number}/part-", f"out-{number}/_SUCCESS", f"out-{number}/_rankmill/")
        assert [key for key in written_twice(s3, f"out-{number}/") if key.startswith(once)] == [], f"seed {seed}"
        assert main(["verify", target, "--deep"]) == 0
        with capfd.disabled():
            print(  # noqa: T201
                f"job {number}: {seconds:.0f} s, {len(ended) - 1} drivers killed, {sum(proxy.struck().values())} of "
                f"{len(proxy.requests)} requests failed, {reader.looks} looks of the reader",
                flush=True,
            )


def test_a_job_that_loses_the_head_continues_elsewhere(tmp_path: Path, rows: list[Row]) -> None:
    """F4, F20: the driver ends by itself; with another cluster the same command does the rest."""
    slow = [{**row, "text": f"{row['text']} SLOW"} for row in rows]
    source, target = write_parquet(tmp_path / "in.parquet", slow), tmp_path / "out"
    flags = ["--input", source, "--output", target, "--model", SCORER, "--shard-pairs", 10, "--workers", 1]
    with polled(target):
        with running_cluster(machines=0, environment={}, head_cpus=3) as cluster:
            driver = cluster.rerank(*flags, "--gpus-per-worker", 0)
            while not Store(str(target)).keys(output.COMMITS):
                assert driver.poll() is None, driver.communicate()[1]
                time.sleep(0.1)
            cluster.lose_the_head()
            _, log = driver.communicate(timeout=240)
        assert driver.returncode not in {None, 0}, log
        assert not (target / "_SUCCESS").exists()
        summary = run_job(source, target, SCORER, shard_pairs=10)
    assert 0 < summary.run_pairs < summary.totals.pairs_in
    run_job(source, tmp_path / "undisturbed", SCORER, shard_pairs=10)
    assert read_rankings(target) == read_rankings(tmp_path / "undisturbed")
