"""The parts of `rankmill bench --serve`, against a gateway with real scorers on a real socket; never a time."""

import io
import math
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from rankmill.bench.machine import this_machine
from rankmill.bench.serve import servers
from rankmill.bench.serve.asks import Ask, alike, mixed, of_size
from rankmill.bench.serve.client import Client
from rankmill.bench.serve.found import Overhead, ServeFound
from rankmill.bench.serve.light import save_light_model
from rankmill.bench.serve.rivals import RivalServer, parse
from rankmill.bench.serve.sides import Bare, Served
from rankmill.bench.serve.tables import tables
from rankmill.bench.serve.turns import OverheadTurns, PassingTurns, ThroughputTurns
from rankmill.cli.main import main
from rankmill.errors import RankmillError, UsageError
from rankmill.scoring.load import check_model, load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.settings.bench_serve import ServeBenchSettings
from rankmill.settings.gateway import GatewaySettings
from tests.cluster.processes import end_all_with, pids_with, psutil, wait_until_none_with
from tests.serving.live import Live, live, tiny
from tests.serving.served import MARKER
from tests.tiny_models import CORPUS, save_tiny_model

TEXTS = [f"{i} {text}" for i in range(20) for text in CORPUS]
STUBBORN = """
import http.server, os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"], process_group=0)
print(os.getpid(), child.pid, flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
"""A server that ignores SIGTERM, with a child in a process group of its own."""
QUERIES = [CORPUS[i % 2] for i in range(len(TEXTS))]
EXACT = 1e-3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(GatewaySettings(), tiny(tmp_path_factory.mktemp("models"))) as running:
        yield running


@pytest.fixture(scope="module")
def served(server: Live) -> Iterator[Served]:
    client = Client(f"http://127.0.0.1:{server.port}", "/v1/rerank", 4)
    yield Served(client, "logit", {"model": "tiny", "return_logits": True})
    client.close()


@pytest.fixture(scope="module")
def bare(server: Live) -> Bare:
    return Bare(load_scorer(server.backend.models()["tiny"].options))


def test_mixed_requests_hold_every_pair_once() -> None:
    asks = mixed(QUERIES, TEXTS)
    assert [text for ask in asks for text in ask.documents] == TEXTS
    assert len({len(ask.documents) for ask in asks}) > 3


def test_requests_of_one_size_are_all_different_and_exactly_so_long() -> None:
    asks = list(islice(alike(QUERIES, [*TEXTS, "é" * 999], 7, 501), 100))
    documents = [document for ask in asks for document in ask.documents]
    assert {len(ask.documents) for ask in asks} == {7}
    assert {len(document.encode()) for document in documents} == {501}
    assert len(set(documents)) == len(documents)
    assert len(set(of_size(QUERIES, TEXTS, 1000).documents)) == 1000


def test_both_sides_of_a_turn_score_the_same(bare: Bare, served: Served) -> None:
    turns = OverheadTurns("tiny", bare, served, alike(QUERIES, TEXTS, 6, 300))
    turns.run(3, EXACT)
    turns.run(1, EXACT)
    found = turns.found()
    assert found.requests == 4
    assert found.logit_difference < EXACT
    assert all({"prepare", "score"} <= reply.phases.keys() for reply in turns.served_replies)
    assert all(math.isfinite(value) for value in asdict(found).values() if isinstance(value, float))


def test_a_server_with_other_logits_is_not_compared(served: Served, tmp_path: Path) -> None:
    other = Bare(load_scorer(ScorerOptions(str(save_tiny_model(tmp_path / "other", "bert", seed=1)), threads=1)))
    turns = OverheadTurns("tiny", other, served, alike(QUERIES, TEXTS, 6, 300))
    with pytest.raises(RankmillError, match="away from the bare scorer's"):
        turns.run(1, EXACT)


def test_many_requests_and_small_ones_during_a_large_one(bare: Bare, served: Served) -> None:
    many = ThroughputTurns(bare, served, mixed(QUERIES, TEXTS))
    many.run(0)
    many.run(1)
    throughput = many.found(4)
    assert (throughput.pairs, throughput.requests) == (len(TEXTS), len(many.asks))
    assert throughput.to_bare > 0
    passing = PassingTurns(served, Ask(CORPUS[0], CORPUS[:2]), of_size(QUERIES, TEXTS, 600))
    passing.warm()
    passing.run()
    found = passing.found()
    assert (found.small, found.large) == (2, 600)
    assert found.idle_ms > 0
    assert (found.ratio is None) == (found.requests == 0)


def test_a_refused_request_is_an_error(server: Live) -> None:
    client = Client(f"http://127.0.0.1:{server.port}", "/v1/rerank", 2)
    bodies = [Ask("q", ("d",)).body(), Ask("q", ("d",)).body(model="no-such-model")]
    with pytest.raises(RankmillError, match="404"):
        client.flood(bodies)
    client.close()


def test_the_light_model_has_the_built_in_tokenizer_and_next_to_no_network(tmp_path: Path) -> None:
    options = ScorerOptions(str(save_light_model(tmp_path / "light")), threads=1)
    card, builtin = check_model(options), check_model(ScorerOptions("builtin"))
    assert card.parameters < builtin.parameters / 50
    light, whole = load_scorer(options), load_scorer(ScorerOptions("builtin", engine="torch", threads=1))
    pairs, expected = (scorer.encode([CORPUS[0]] * 6, CORPUS) for scorer in (light, whole))
    np.testing.assert_array_equal(pairs.token_ids, expected.token_ids)
    assert len(set(light.logits(pairs).tolist())) == 6


def test_servers_that_there_are_not() -> None:
    assert parse(" fastapi, infinity,fastapi") == ["fastapi", "infinity"]
    with pytest.raises(UsageError, match="known are fastapi, infinity"):
        parse("triton")
    with pytest.raises(RankmillError, match="--infinity"):
        servers.infinity(ServeBenchSettings(infinity="/no/such/infinity_emb"), Path(), servers.free_url())


def test_a_server_that_cannot_run_is_a_line_and_no_row_of_figures(tmp_path: Path) -> None:
    rival = RivalServer("infinity")
    settings = ServeBenchSettings(infinity="/no/such/infinity_emb")
    with rival.running(settings, lambda: tmp_path, tmp_path, 1, 128):
        rival.run(Ask("q", ("d",)), [])
    found = rival.found([], [], 0)
    assert found.problem is not None
    assert "uv pip install" in found.problem
    assert found.p50_ms is None


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", "echo no model here; exit 3"]
    with (
        pytest.raises(RankmillError, match="no model here"),
        servers.running(command, "http://127.0.0.1:9/", tmp_path / "log"),
    ):
        pass


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="sessions are looked up in /proc")
def test_a_broken_off_measurement_leaves_no_process_of_a_server_that_does_not_listen(tmp_path: Path) -> None:
    url = servers.free_url()
    command = [sys.executable, "-c", STUBBORN, url.rpartition(":")[2]]
    with suppress(KeyboardInterrupt), servers.running(command, url, tmp_path / "log"):
        pids = [int(pid) for pid in (tmp_path / "log").read_text().splitlines()[0].split()]
        assert [psutil.pid_exists(pid) for pid in pids] == [True, True]
        raise KeyboardInterrupt
    gone, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=10)
    assert all(process.status() == psutil.STATUS_ZOMBIE for process in alive), (gone, alive)


def test_the_table_shows_what_was_found() -> None:
    one = Overhead("m", 4, 100.0, 10.0, 12.5, 2.5, 0.3, 1.7, 0.6, 1.0, 1e-6)
    turns = ThroughputTurns(None, None, [Ask("q", ("d",))], [1.0], [2.0])  # type: ignore[arg-type]
    passing = PassingTurns(None, Ask("q", ("d",)), Ask("q", ("d",) * 9), 1.0, [1.0], [1.5], [1.0], 3)  # type: ignore[arg-type]
    rival = RivalServer("fastapi")
    rival.problem = "not here"
    found = ServeFound(
        this_machine(1), "m", "torch", "float32", 1, 10.0, 100, 2000, one, one, turns.found(32), passing.found(),
        (rival.found([], [], 0),),
    )  # fmt: skip
    console = Console(file=io.StringIO(), width=200)
    for part in tables(found):
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert all(word in shown for word in ("2.5", "0.3", "1.7", "0.6", "0.50", "1.50", "fastapi: not here"))


def test_the_flag_chooses_the_settings_wherever_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    for flags in (["--serve", "--against", "triton"], ["--against", "triton", "--serve"]):
        assert main(["bench", *flags]) == 2
        assert "known are fastapi, infinity" in capsys.readouterr().err


@pytest.mark.slow
def test_an_interrupted_measurement_ends_its_server(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "tiny", "bert")
    marker = uuid.uuid4().hex
    flags = ["--model", str(model), "--pairs", "50", "--light-requests", "1000", "--threads", "1"]
    with (tmp_path / "said").open("w+") as said:
        bench = subprocess.Popen(
            [sys.executable, "-m", "rankmill", "bench", "--serve", *flags],
            env=os.environ | {MARKER: marker, "PYTHONUNBUFFERED": "1"},
            stderr=said,
        )
        try:
            while "warming up" not in (tmp_path / "said").read_text():
                assert bench.poll() is None, (tmp_path / "said").read_text()
                time.sleep(0.1)
            assert len(pids_with(MARKER, marker)) > 5
            bench.send_signal(signal.SIGINT)
            assert bench.wait(180) == 130
            assert wait_until_none_with(MARKER, marker) == []
        finally:
            bench.kill()
            end_all_with(MARKER, marker)


@pytest.mark.slow
def test_the_whole_measurement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import orjson  # noqa: PLC0415
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    model = save_tiny_model(tmp_path / "tiny", "bert")
    ids = [str(i) for i in range(len(TEXTS))]
    pq.write_table(
        pa.table({"query_id": ["q"] * len(TEXTS), "query": QUERIES, "doc_id": ids, "text": TEXTS}),
        tmp_path / "pairs.parquet",
    )
    flags = f"--model {model} --input {tmp_path}/pairs.parquet --rounds 1 --threads 1 --light-requests 2 --json"
    flags += " --documents 5 --concurrency 4 --against fastapi"
    assert main(["bench", "--serve", *flags.split()]) == 0
    found: dict[str, Any] = orjson.loads(capsys.readouterr().out.splitlines()[-1])
    (rival,) = found["rivals"]
    assert rival["problem"] is None
    assert rival["logit_difference"] < EXACT
    for name in ("overhead", "light", "throughput", "passing"):
        assert all(
            value is None or math.isfinite(value) for value in found[name].values() if not isinstance(value, str)
        )
