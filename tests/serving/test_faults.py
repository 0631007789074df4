"""What the endpoint promises under faults and load, on one running `rankmill serve` with HAProxy in front.

Every fault, what comes of it, and the test: of this module where no other is named.

* A scorer is killed five times under load: no request fails. `test_killing_scorers_under_load_fails_no_request`
* Another model is deployed under load: no request fails, and the revision of each answer is that of its scores.
  `test_a_new_version_takes_over_under_load_without_a_dropped_request`
* Four times what the model can do: 429 with Retry-After at once, and the model stays busy.
  `test_overload_is_refused_at_once_and_costs_no_throughput`
* Slow headers and bodies, idle connections, 64 MB, 100,000 documents: 408, 413, 400; memory stays, others are served.
  `test_hostile_connections_are_refused_and_cost_others_nothing`
* More slow clients than requests may run: the others are served.
  `test_gateway.test_clients_that_send_slowly_keep_nobody_out`
* A model raises with the text that it was given: 500, and no log holds the text.
  `test_no_text_of_a_request_reaches_a_log_not_even_by_a_models_own_error`
* Constant load, good and bad requests: nothing fails, nothing grows.
  `test_nothing_fails_and_nothing_grows_under_constant_load`
* A replica that searches is killed: the search is repeated.
  `test_serve_search.test_searches_go_on_after_its_replica_died`
* An index cannot be read: 503 for searches alone. `test_gateway.test_a_lost_index_takes_no_reranking_with_it`
* A deadline passes: 504. A client leaves: its work is dropped.
  `test_gateway.test_a_request_ends_with_its_deadline`, `test_a_client_that_leaves_takes_its_work_with_it`
* Any body, any bytes: no 5xx, nothing that OpenAPI does not describe. `test_schemathesis`
* NaN logits, other files than deployed, a failed self-test: 500, or the replica does not start. `test_replica`
* No key, a wrong one, one that is no text: 401 on all but the probes.
  `test_gateway.test_all_but_the_probes_needs_a_key`
* No replica can be started: 503 with Retry-After. Not tested: it takes Ray Serve minutes to give a deployment up.
* A gateway or HAProxy is killed: what is on its way may fail. Not promised, and not tested.
"""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from numpy.typing import NDArray

from rankmill import load as load_reranker
from tests.cluster.processes import psutil
from tests.serving.bodies import MIXED, mixed_body, sleeper_body, tiny_body
from tests.serving.load import Reply, arrivals, clients
from tests.serving.served import Server, answer_on, command, serving
from tests.tiny_models import CORPUS, MAX_LENGTH, save_tiny_model

pytestmark = pytest.mark.slow

PAIR_SECONDS = 0.02
SLEEPER = f"""
    import time

    class Sleeper:
        '''Takes the same time for every pair, whatever else the machine does: its capacity is known.'''

        def score(self, queries, texts):
            for text in texts:
                if text.startswith("canary"):
                    raise ValueError(text)
            time.sleep({PAIR_SECONDS} * len(texts))
            return [float(len(text)) for text in texts]
"""
READ = {"old": MAX_LENGTH, "new": 12}
"""Tokens that each version reads of a pair: one makes other tokens than the other."""
QUEUED_BYTES = 200_000
BODY_SECONDS = 2
MOST_RUNNING = 100
SOAK_SECONDS = int(os.environ.get("RANKMILL_SOAK_SECONDS", "20"))
"""Of constant load; `RANKMILL_SOAK_SECONDS=600` is the long run."""
JOINING = {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Environment of a process that joins the server's Ray, which listens on loopback."""
GCS = re.compile(r"gcs-address=([\d.]+:\d+)")
LOGS = re.compile(r"--log_dir=([^\0]+)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    for seed, name in enumerate(("old", "new")):
        save_tiny_model(folder / name, "bert", seed)
    (folder / "sleeper.py").write_text(textwrap.dedent(SLEEPER))
    return folder


def config(folder: Path, weights: str) -> str:
    """A file of settings: the model `tiny` with two replicas, and `sleeper`."""
    models: list[dict[str, Any]] = [
        {
            "model": str(folder / weights),
            "name": "tiny",
            "replicas": 2,
            "threads": 1,
            "max_length": READ[weights],
            "cache_bytes": 1_000_000,
        },
        {
            "model": "python:sleeper:Sleeper",
            "name": "sleeper",
            "threads": 1,
            "cache_bytes": 0,
            "queue_tokens": QUEUED_BYTES,
        },
    ]
    file = folder / f"{weights}.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "models": models,
                "timeout_seconds": 100,
                "body_seconds": BODY_SECONDS,
                "max_running_requests": MOST_RUNNING,
            }
        )
    )
    return str(file)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    path = os.pathsep.join([str(Path(__file__).parents[2] / "lib"), str(folder)])
    environment = {"PYTHONPATH": path, "RAY_AUTH_TOKEN": "a-token-for-this-test-alone-" + "0" * 36}
    with serving(["--config", config(folder, "old")], folder, environment) as running:
        yield running


def test_a_batch_job_the_command_and_the_endpoint_give_the_same_logits_in_the_same_order(
    server: Server, folder: Path
) -> None:
    documents = [*CORPUS, "", " ".join(CORPUS * 9), CORPUS[0]]
    rows = [
        {"query_id": f"q{n}", "query": query, "doc_id": f"d{i}", "text": text}
        for n, query in enumerate([CORPUS[1], "a fox"])
        for i, text in enumerate(documents)
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet")
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = ["--model", str(folder / "old")]
    server.command("rerank", *model, "--input", "pairs.parquet", "--output", "rankings", "--quiet")
    job = pq.read_table(folder / "rankings").to_pylist()
    commanded = server.command("score", *model, "--input", "pairs.jsonl")
    command = [json.loads(line) for line in commanded.splitlines()]
    for n, query in enumerate([CORPUS[1], "a fox"]):
        body = {"query": query, "documents": documents, "model": "tiny", "return_logits": True}
        load = arrivals(server.url, lambda _, body=body: body, per_second=1, count=1)  # type: ignore[misc]
        assert load.statuses() == {200: 1}
        online = [(f"d{found['index']}", found["logit"]) for found in load.replies[0].body["results"]]
        for others in (job, command):
            mine = sorted((row for row in others if row["query_id"] == f"q{n}"), key=lambda row: row["rank"])
            assert [row["doc_id"] for row in mine] == [name for name, _ in online]
            np.testing.assert_allclose([row["logit"] for row in mine], [logit for _, logit in online], atol=1e-5)


def test_killing_scorers_under_load_fails_no_request(server: Server) -> None:
    gone: set[int] = set()
    with clients(server.url, tiny_body, count=4) as load:
        load.wait_for(50)
        for _ in range(5):
            victim = server.wait_for_replicas("scorer-tiny", gone, count=2)[0]
            os.kill(victim, signal.SIGKILL)
            gone.add(victim)
            load.wait_for(200)
        server.wait_for_replicas("scorer-tiny", gone, count=2)
    assert load.statuses() == {200: len(load.replies)}
    assert len(load.replies) >= 1000


def test_hostile_connections_are_refused_and_cost_others_nothing(server: Server) -> None:
    (gateway,) = server.replicas("gateway")
    large = b"x" * 64_000_000
    many = json.dumps({"query": "q", "documents": ["d"] * 100_000}).encode()
    with clients(server.url, tiny_body, count=1) as load, ExitStack() as opened:
        assert server.post(large)[0] == 413  # once, for what is allocated once
        assert server.post(many)[0] in {400, 422}
        load.wait_for(20)
        before = memory(gateway)
        for _ in range(200):
            opened.enter_context(server.connect())  # idle
        headers = [opened.enter_context(server.connect()) for _ in range(50)]
        bodies = [opened.enter_context(server.connect()) for _ in range(MOST_RUNNING + 20)]
        for connection in headers:
            connection.sendall(b"POST /v1/rerank HTTP/1.1\r\nHost: slow\r\nX-Slow: ")
        for connection in bodies:
            connection.sendall(b"POST /v1/rerank HTTP/1.1\r\nHost: slow\r\nContent-Length: 1000\r\n\r\n{")
        load.wait_for(20)
        for _ in range(5):
            assert server.post(large)[0] == 413
            status, answer = server.post(many)
            assert status in {400, 422}
            assert len(answer) < 2048
        for connection in bodies:
            status, answer = answer_on(connection)
            assert status == 408
            assert b"did not arrive within" in answer
        for connection in headers:
            assert answer_on(connection)[0] == 408
        load.wait_for(20)
        after = memory(gateway)
    assert load.statuses() == {200: len(load.replies)}
    assert after - before < 32_000_000  # half of one of the bodies


def test_no_text_of_a_request_reaches_a_log_not_even_by_a_models_own_error(server: Server) -> None:
    body = json.dumps({"model": "sleeper", "query": "canary-query", "documents": ["canary-document"]})
    assert server.post(body.encode())[0] == 500
    logs = next(Path(found[1]) for pid in server.pids() if (found := LOGS.search(command(pid))))
    files = [file for file in logs.rglob("*") if file.is_file()]
    assert any(file.name.startswith("worker-") for file in files)
    assert [file.name for file in files if b"canary-" in file.read_bytes()] == []


def test_overload_is_refused_at_once_and_costs_no_throughput(server: Server) -> None:
    work = 5 * PAIR_SECONDS
    arrivals(server.url, sleeper_body, per_second=10, count=10)  # the first ones find nothing loaded
    load = arrivals(server.url, sleeper_body, per_second=4 / work, count=400)
    served = [reply for reply in load.replies if reply.status == 200]
    refused = [reply for reply in load.replies if reply.status != 200]
    assert {reply.status for reply in refused} == {429}
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
    assert len(served) * work / load.seconds >= 0.9  # of what the model can do
    assert statistics.median(reply.seconds for reply in refused) < 0.1


def memory(pid: int) -> int:
    """Bytes that a process holds."""
    return int(psutil.Process(pid).memory_info().rss)


@pytest.mark.timeout(SOAK_SECONDS + 600)
def test_nothing_fails_and_nothing_grows_under_constant_load(server: Server) -> None:
    pids = [pid for name in ("gateway", "scorer-") for pid in server.replicas(name)]
    with clients(server.url, mixed_body, count=4) as load:
        load.wait_for(500)
        before = {pid: memory(pid) for pid in pids}
        time.sleep(SOAK_SECONDS)
        after = {pid: memory(pid) for pid in pids}
    assert {(reply.number % len(MIXED), reply.status) for reply in load.replies} == set(enumerate(MIXED))
    assert [pid for pid in pids if after[pid] > 1.05 * before[pid] + 16_000_000] == []


def test_a_new_version_takes_over_under_load_without_a_dropped_request(server: Server, folder: Path) -> None:
    address = next(found[1] for pid in server.pids() if (found := GCS.search(command(pid))))
    arguments = ["--config", config(folder, "new"), "--address", address, "--port", str(server.port)]
    bodies = [tiny_body(number) for number in range(20)]
    with clients(server.url, lambda number: bodies[number % 20], count=4) as load:
        load.wait_for(100)
        newer = subprocess.Popen(
            [sys.executable, "-m", "rankmill", "serve", *arguments],
            env={**server.environment, **JOINING},
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        with newer:
            try:
                assert newer.stdout is not None
                started = newer.stdout.readline()
                load.wait_for(300)
            finally:
                newer.kill()
    assert started.startswith("Serving tiny, sleeper")
    assert load.statuses() == {200: len(load.replies)}
    scored = {version: logits(folder / version, bodies, length) for version, length in READ.items()}
    seen = set()
    for reply in load.replies:
        (version,) = (
            name
            for name, of_bodies in scored.items()
            if np.allclose(in_order(reply), of_bodies[reply.number % len(bodies)], atol=1e-5)
        )
        seen.add((reply.headers["x-model-revision"], version))
    # each of the two revisions is the name of one version's scores, before, during and after
    assert sorted(version for _, version in seen) == ["new", "old"]
    assert len({revision for revision, _ in seen}) == 2


def in_order(reply: Reply) -> list[float]:
    """The logits of an answer, in the order of the documents."""
    return [result["logit"] for result in sorted(reply.body["results"], key=lambda result: result["index"])]


def logits(model: Path, bodies: list[dict[str, Any]], max_length: int) -> list[NDArray[np.float32]]:
    """Of each body's documents, from the library."""
    reranker = load_reranker(str(model), max_length=max_length)
    activated = [reranker.rank(body["query"], body["documents"]) for body in bodies]
    return [np.asarray([found.logit for found in sorted(each, key=lambda one: one.index)]) for each in activated]
