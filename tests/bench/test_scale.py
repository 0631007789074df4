"""The measurements of the machinery, very small: that they measure what they say; never a time."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from rankmill.bench.scale import commit, footers, resume, workers
from rankmill.bench.scale.measured import Measured
from rankmill.bench.scale.s3 import s3_server
from rankmill.errors import UsageError
from rankmill.settings.scale import CommitSettings, FootersSettings, ResumeSettings, WorkersSettings
from rankmill.settings.storage import StorageSettings
from rankmill.storage.probe import flaw_of
from rankmill.storage.store import Store
from rankmill.tables.locate import list_files
from tests.conftest import S3Bucket

ROOT = Path(__file__).parents[2]


def quiet(_line: str) -> None:
    """Say nothing."""


def finite(measured: Measured) -> Measured:
    for figure in measured.figures:
        assert math.isfinite(figure.value), figure
        assert figure.value >= 0, figure
    assert len({figure.name for figure in measured.figures}) == len(measured.figures)
    return measured


def test_our_s3_server_is_one() -> None:
    with s3_server() as url:
        store = Store("s3://bucket/a folder")
        assert flaw_of(store) is None
        assert store.create("x&y", b"body", {"rows": "17"})
        assert not store.create("x&y", b"another")
        head = store.head("x&y")
        assert head is not None
        assert (head.size, head.metadata["rows"]) == (4, "17")
        assert (store.read("x&y", if_match=head.etag), store.read_end("x&y", 4, 2)) == (b"body", b"dy")
        assert store.read_range("x&y", 1, 3, head.etag) == b"od"
        assert store.read_if_present("z") is None
        for number in range(1003):  # one more than a page, beside the three others
            store.create(f"many/{number:04}.jsonl", b"x")
        assert store.keys("many") == [f"many/{number:04}.jsonl" for number in range(1003)]
        assert store.top_level() == ["many/", "x&y"]
        assert len(list_files("s3://bucket/a folder/many", storage=StorageSettings(endpoint=url))) == 1003
        store.delete(["x&y", "many/0000.jsonl"])
        assert store.top_level() == ["many/"]
        assert len(store.keys("many")) == 1002


def test_footers() -> None:
    found = finite(footers.measure(FootersSettings(files=20, row_groups=3), quiet))
    assert (found.value("files"), found.value("row groups"), found.value("queries")) == (20, 60, 60)
    assert 1 <= found.value("requests per file") < 1.2, "one each, and a few for the listing"


@pytest.mark.parametrize("server", ["ours", "moto"])
def test_commit(server: str, s3: S3Bucket) -> None:
    place = {"endpoint": s3.endpoint, "bucket": s3.bucket} if server == "moto" else {}
    settings = CommitSettings.model_validate({"shards": 2, "pairs": 30, "seconds": 0.05, **place})
    found = finite(commit.measure(settings, quiet))
    for where in ("local folder", "S3"):
        assert found.value(f"{where}, scoring") >= 50
        taken, scoring = (found.value(f"{where}, {what}") for what in ("commit", "scoring"))
        assert found.value(f"{where}, share of commit") == pytest.approx(100 * taken / (taken + scoring), rel=0.5)
    keys = Store(f"s3://{s3.bucket}").keys("") if server == "moto" else []
    assert sum("_rejected/" in key for key in keys) == (2 if server == "moto" else 0)


@pytest.mark.usefixtures("local_ray")
def test_workers() -> None:
    settings = WorkersSettings(workers=4, workers_per_actor=2, seconds=0.05, shards_per_worker=3, pairs=5)
    found = finite(workers.measure(settings, quiet))
    assert (found.value("shards"), found.value("of workers that never wait")) == (12, 400)
    assert found.value("steady efficiency") == pytest.approx(found.value("steady pairs") / 400)
    assert found.value("steady pairs") == pytest.approx(5 * found.value("steady shards"))


def test_workers_that_cannot_be_shared_out() -> None:
    with pytest.raises(UsageError, match="--workers 5 is no multiple of --workers-per-actor 2"):
        workers.measure(WorkersSettings(workers=5, workers_per_actor=2), quiet)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_resume() -> None:
    found = finite(resume.measure(ResumeSettings(shards=12, pairs=2), quiet))
    for place in ("local folder", "S3"):
        name = f"{place}, 11 committed shards"
        handed, committed, finished = (
            found.value(f"{name}: {what}") for what in ("shard handed to Ray Data", "it is committed", "job finished")
        )
        assert 0 < handed < committed < finished


@pytest.mark.slow
def test_an_empty_endpoint() -> None:
    command = [sys.executable, str(ROOT / "jobs" / "scale.py"), "endpoint", "--requests", "3", "--documents", "7"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, timeout=300)
    found = {figure["name"]: figure["value"] for figure in json.loads(done.stdout.splitlines()[-1])["figures"]}
    assert (found["requests"], found["body"]) == (3, 14)
    assert 0 < found["of it score"] < found["request"]
    assert 0 < found["of it HTTP"] < found["request"]


def test_the_script_prints_a_table_and_json() -> None:
    command = [sys.executable, str(ROOT / "jobs" / "scale.py")]
    done = subprocess.run(
        [*command, "footers", "--files", "10", "--row-groups", "2", "--json"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "lib"), "PATH": "", "HOME": "/nonexistent"},
    )
    found = json.loads(done.stdout)
    assert (found["measurement"], found["figures"][1]) == (
        "footers",
        {"name": "row groups", "value": 20, "unit": "", "target": ""},
    )
    assert ">= 300" in done.stderr
    wrong = subprocess.run([*command, "feet"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert "footers" in wrong.stderr
