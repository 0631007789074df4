"""`jobs/join_bench.py`: what it generates, what it counts, and the command itself."""

import json
import multiprocessing
import multiprocessing.synchronize
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rankmill.batch import join, scan
from rankmill.batch.executor import InProcess
from rankmill.batch.planning import cut
from rankmill.batch.read import Source
from rankmill.bench.join_inputs import make
from rankmill.bench.tree import tree_bytes, watched
from rankmill.cli.main import main
from rankmill.settings.join_bench import JoinBenchSettings
from rankmill.settings.rerank import RerankSettings
from rankmill.storage.store import Store

ROOT = Path(__file__).parents[2]
BLOCK = 96 << 20


@pytest.mark.parametrize("form", ["parquet", "beir"])
def test_every_pair_that_is_generated_finds_its_texts(form: str, tmp_path: Path) -> None:
    settings = JoinBenchSettings(documents=500, pairs=1010, candidates=20, words=6, form=form, against="nothing")
    inputs = make(settings, tmp_path)
    job = RerankSettings(
        input=str(inputs.run), queries=str(inputs.queries), corpus=str(inputs.corpus), output=str(tmp_path / "out")
    )
    inspected = scan.inspect_run(job)
    assert inspected.texts is not None
    plan, _ = cut(job, inspected, InProcess())
    assert (plan.pairs, plan.queries) == (1010, 51)
    source, left = Source(inspected.layout, plan.files, ids_only=True), {shard.index for shard in plan.shards}
    _, files = join.join(plan, source, inspected.texts, Store(str(tmp_path / "out")), InProcess(), left)
    tables = [pq.read_table(file.uri) for file in files]
    assert sum(map(len, tables)) == 1010
    assert {reason for table in tables for reason in table.column("reason").to_pylist()} == {None}


def hold_a_block(ready: multiprocessing.synchronize.Event, go_on: multiprocessing.synchronize.Event) -> None:
    block = os.urandom(BLOCK)
    ready.set()
    go_on.wait(60)
    assert len(block) == BLOCK


def test_memory_of_a_process_counts_for_the_one_that_started_it() -> None:
    context = multiprocessing.get_context("spawn")
    ready, go_on = context.Event(), context.Event()
    before = tree_bytes(os.getpid())
    with watched() as peak:
        process = context.Process(target=hold_a_block, args=(ready, go_on))
        process.start()
        assert ready.wait(60)
        during = tree_bytes(os.getpid())
        go_on.set()
        process.join()
    assert during - before > BLOCK
    assert peak.bytes > 0
    assert tree_bytes(2**22 + 1) == 0, "no such process"


def test_what_cannot_be_compared_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, "jobs/join_bench.py", "--form", "beir"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "say --against nothing" in done.stderr
    assert main(["join-bench"]) == 2, "it is a script, no command"
    assert "join-bench is not a command" in capsys.readouterr().err


@pytest.mark.slow
def test_the_script_joins_and_reports() -> None:
    flags = ["--documents", "2k", "--pairs", "6k", "--against", "nothing", "--json"]
    done = subprocess.run(
        [sys.executable, "jobs/join_bench.py", *flags], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["documents"], found["pairs"]) == (2000, 6000)
    assert [side["name"] for side in found["sides"]] == ["rankmill"]
    assert found["sides"][0]["seconds"] > 0
    assert found["sides"][0]["peak_bytes"] > 100 << 20, "a Ray of its own was part of it"
