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
* A CUDA error, after which a process is of no use: another replica scores, and a new one is started.
  `test_a_replica_whose_accelerator_failed_is_replaced_and_its_requests_are_scored`
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
* All replicas of a model are gone and none can be started: 503 with Retry-After, `/readyz` says so, other models go on.
  `test_a_model_that_cannot_be_started_again_is_unavailable_until_it_can`
* New versions of two models, one with a single replica, fail their self-tests: `rankmill serve` ends and names one, and
  the versions before go on.
  `test_a_bad_version_ends_its_command_and_the_one_before_goes_on`
* One of two gateways is killed under load: the other one gets its requests; one connection breaks at most.
  `test_killing_a_gateway_under_load_breaks_one_connection_at_most`
* `rankmill serve --address` with another host or port than Ray Serve has: refused, the service that runs goes on.
  `test_an_address_that_serve_does_not_listen_on_is_refused`
* HAProxy is killed: connections break, and it is replaced. `test_a_killed_haproxy_is_replaced`
"""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
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
from tests.serving.live import eventually
from tests.serving.load import BROKEN, Reply, arrivals, clients
from tests.serving.scrape import total
from tests.serving.served import Server, answer_on, command, serving
from tests.tiny_models import CORPUS, MAX_LENGTH, save_tiny_model

pytestmark = pytest.mark.slow

PAIR_SECONDS = 0.02
SLEEPER = f"""
    import time
    from pathlib import Path

    class Sleeper:
        '''Takes the same time for every pair, whatever else the machine does: its capacity is known.'''

        def score(self, queries, texts):
            for text in texts:
                if text.startswith("canary"):
                    raise ValueError(text)
                if text.startswith("/") and not Path(text).exists():
                    Path(text).touch()
                    raise RuntimeError("CUDA error: an illegal memory access was encountered")
            time.sleep({PAIR_SECONDS} * len(texts))
            return [float(len(text)) for text in texts]

    class Broken:
        def score(self, queries, texts):
            return [float("nan")] * len(texts)
"""
READ = {"old": MAX_LENGTH, "new": 12}
"""Tokens that each version reads of a pair: one makes other tokens than the other."""
QUEUED_BYTES = 200_000
BODY_SECONDS = 2
MOST_RUNNING = 100
GATEWAYS = 2
SOAK_SECONDS = int(os.environ.get("RANKMILL_SOAK_SECONDS", "20"))
"""Of constant load; `RANKMILL_SOAK_SECONDS=600` is the long run."""
SOAK = Path(__file__).parents[2] / "artifacts" / "soak.json"
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
                "gateways": GATEWAYS,
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


def test_pairs_that_a_dying_scorer_had_are_scored_again_and_counted(server: Server) -> None:
    """The model sleeps for its pairs, so that it surely has them when it is killed."""
    documents = [str(i) for i in range(150)]
    (victim,) = server.replicas("scorer-sleeper")
    before = counted(server)
    with clients(server.url, lambda _: {"model": "sleeper", "query": "q", "documents": documents}, count=1) as load:
        time.sleep(len(documents) * PAIR_SECONDS / 2)
        os.kill(victim, signal.SIGKILL)
        load.wait_for(1)
    assert load.statuses() == {200: len(load.replies)}
    found = counted(server)
    lost = 'rankmill_lost_pairs_total{model="sleeper"}'
    assert found[lost] - before.get(lost, 0.0) == len(documents)


def test_the_metrics_of_all_gateways_add_up(server: Server) -> None:
    before = counted(server)
    bodies = [mixed_body(number) for number in range(100)]
    load = arrivals(server.url, bodies.__getitem__, per_second=50, count=len(bodies))
    found = counted(server)
    for status, count in Counter(f"{reply.status // 100}xx" for reply in load.replies).items():
        labels = 'route="/v1/rerank"', f'status="{status}"'
        assert (
            total(found, "rankmill_requests_total", *labels) - total(before, "rankmill_requests_total", *labels)
            == count
        )
    pairs = sum(len(body["documents"]) for body, status in zip(bodies, MIXED * 20, strict=True) if status == 200)
    assert total(found, "rankmill_pairs_total") - total(before, "rankmill_pairs_total") == pairs
    for gateway in server.replicas("gateway"):  # none of them knows it all
        assert 0 < total(server.scrape(gateway), "rankmill_pairs_total") < total(found, "rankmill_pairs_total")


def counted(server: Server) -> dict[str, float]:
    """The series of all gateways, added up."""
    found: dict[str, float] = {}
    for gateway in server.replicas("gateway"):
        for name, value in server.scrape(gateway).items():
            found[name] = found.get(name, 0.0) + value
    return found


def test_killing_a_gateway_under_load_breaks_one_connection_at_most(server: Server) -> None:
    """What it had is sent to the other one by HAProxy, bodies of 100 kB too."""
    documents = [f"{i} ".ljust(2000, "x") for i in range(50)]
    gateways = server.replicas("gateway")
    with clients(server.url, lambda number: {"query": f"q {number}", "documents": documents}, count=4) as load:
        load.wait_for(100)
        os.kill(gateways[0], signal.SIGKILL)
        load.wait_for(100)
        server.wait_for_replicas("gateway", gateways[:1], count=GATEWAYS)
        load.wait_for(100)
    statuses = load.statuses()
    broken = statuses.pop(BROKEN, 0)
    assert broken <= 1, [reply.body for reply in load.replies if reply.status == BROKEN]
    assert statuses == {200: len(load.replies) - broken}


def test_a_killed_haproxy_is_replaced(server: Server) -> None:
    with clients(server.url, tiny_body, count=1) as load:
        load.wait_for(50)
        for pid in server.haproxies():
            os.kill(pid, signal.SIGKILL)
        load.wait_for_status(BROKEN)
        load.wait_for_status(200)
        load.wait_for(50)
    assert set(load.statuses()) <= {200, 503, BROKEN}
    assert all(reply.headers["retry-after"] == "1" for reply in load.replies if reply.status == 503)
    assert load.replies[-1].status == 200


def test_hostile_connections_are_refused_and_cost_others_nothing(server: Server) -> None:
    held_by = [*server.replicas("gateway"), *server.haproxies()]
    large = b"x" * 64_000_000
    many = json.dumps({"query": "q", "documents": ["d"] * 100_000}).encode()
    with clients(server.url, tiny_body, count=1) as load, ExitStack() as opened:
        assert server.post(large)[0] == 413  # once, for what is allocated once
        assert server.post(many)[0] in {400, 422}
        load.wait_for(20)
        before = sum(map(memory, held_by))
        for _ in range(200):
            opened.enter_context(server.connect())  # idle
        headers = [opened.enter_context(server.connect()) for _ in range(50)]
        bodies = [opened.enter_context(server.connect()) for _ in range(GATEWAYS * MOST_RUNNING + 20)]
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
        after = sum(map(memory, held_by))
    assert load.statuses() == {200: len(load.replies)}
    assert after - before < len(held_by) * 32_000_000  # half of one of the bodies each


def test_no_text_of_a_request_reaches_a_log_not_even_by_a_models_own_error(server: Server) -> None:
    body = json.dumps({"model": "sleeper", "query": "canary-query", "documents": ["canary-document"]})
    assert server.post(body.encode(), request_id="this-one")[0] == 500
    logs = next(Path(found[1]) for pid in server.pids() if (found := LOGS.search(command(pid))))
    files = [file for file in logs.rglob("*") if file.is_file()]
    lines = [line for file in files if file.suffix == ".err" for line in file.read_text().splitlines()]
    (request,) = (json.loads(line) for line in lines if '"request_id": "this-one"' in line)
    assert (request["event"], request["status"], request["model"]) == ("request", 500, "sleeper")
    assert any('"event": "a forward pass' in line and '"error": ' in line for line in lines)
    assert [file.name for file in files if b"canary-" in file.read_bytes()] == []


def test_a_replica_whose_accelerator_failed_is_replaced_and_its_requests_are_scored(
    server: Server, tmp_path: Path
) -> None:
    before = server.replicas("scorer-sleeper")
    body = json.dumps({"model": "sleeper", "query": "q", "documents": [str(tmp_path / "once")]})
    assert server.post(body.encode())[0] == 200
    assert (tmp_path / "once").exists()
    assert not set(before) & set(server.replicas("scorer-sleeper"))


@pytest.mark.parametrize("headers", [{}, {"X-Request-Timeout-Ms": "3000"}], ids=["full queue", "short time"])
def test_overload_is_refused_at_once_and_costs_no_throughput(server: Server, headers: dict[str, str]) -> None:
    """Where the queue is full, and where it is not but nobody would wait so long: whoever is taken in is served."""
    work = 5 * PAIR_SECONDS
    arrivals(server.url, sleeper_body, per_second=10, count=10)  # the first ones find nothing loaded
    load = arrivals(server.url, sleeper_body, per_second=4 / work, count=400, headers=headers)
    served = [reply for reply in load.replies if reply.status == 200]
    refused = [reply for reply in load.replies if reply.status != 200]
    assert {reply.status for reply in refused} == {429}
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
    assert len(served) * work / load.seconds >= 0.9  # of what the model can do
    assert np.percentile([reply.seconds for reply in refused], 95) < 0.1


def memory(pid: int) -> int:
    """Bytes that a process holds."""
    return int(psutil.Process(pid).memory_info().rss)


@pytest.mark.timeout(SOAK_SECONDS + 600)
def test_nothing_fails_and_nothing_grows_under_constant_load(server: Server) -> None:
    """What it saw is kept in `artifacts/soak.json`."""
    pids = {
        f"{name} {pid}": pid for name in ("gateway", "scorer-tiny", "scorer-sleeper") for pid in server.replicas(name)
    }
    with clients(server.url, mixed_body, count=4) as load:
        load.wait_for(500)
        grown = {name: [memory(pid)] for name, pid in pids.items()}
        for _ in range(2):  # half-way as well: what has settled by then is no leak
            time.sleep(SOAK_SECONDS / 2)
            for name, pid in pids.items():
                grown[name].append(memory(pid))
    seen = {"seconds": SOAK_SECONDS, "statuses": load.statuses(), "memory_bytes": grown}
    SOAK.parent.mkdir(exist_ok=True)
    SOAK.write_text(json.dumps(seen, indent=1) + "\n")
    assert {(reply.number % len(MIXED), reply.status) for reply in load.replies} == set(enumerate(MIXED))
    assert [name for name, (before, _, after) in grown.items() if after > 1.05 * before + 16_000_000] == []


@pytest.mark.parametrize("given", [["mine-7"], ["two words"], ["x" * 129], ["one", "two"], []])
def test_an_answer_has_one_request_id_and_never_an_odd_one(server: Server, given: list[str]) -> None:
    with server.connect() as connection:
        ids = "".join(f"X-Request-Id: {one}\r\n" for one in given)
        connection.sendall(f"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{ids}\r\n".encode())
        with closing(http.client.HTTPResponse(connection)) as answer:
            answer.begin()
            (found,) = answer.headers.get_all("x-request-id", [])
    assert (found in given) == (given == ["mine-7"])


def test_a_model_that_cannot_be_started_again_is_unavailable_until_it_can(server: Server, folder: Path) -> None:
    (folder / "old").rename(folder / "away")
    try:
        for pid in server.replicas("scorer-tiny"):
            os.kill(pid, signal.SIGKILL)
        short = {"X-Request-Timeout-Ms": "8000"}
        load = arrivals(server.url, tiny_body, per_second=2, count=6, headers=short)
        assert load.statuses() == {503: 6}
        assert all(int(reply.headers["retry-after"]) >= 1 for reply in load.replies)
        assert all("'tiny'" in reply.body["message"] for reply in load.replies)
        assert (server.get("/readyz")[0], server.get("/healthz")[0]) == (503, 200)
        assert arrivals(server.url, sleeper_body, per_second=2, count=2).statuses() == {200: 2}
    finally:
        (folder / "away").rename(folder / "old")
    assert server.rerank("tiny")[0] == 200  # it waits for a replica
    eventually(lambda: server.get("/readyz")[0] == 200)  # which on a busy machine may be slow to say so


def test_a_bad_version_ends_its_command_and_the_one_before_goes_on(server: Server, folder: Path) -> None:
    broken = yaml.safe_load(Path(config(folder, "old")).read_text())
    for model in broken["models"]:
        model |= {"model": "python:sleeper:Broken", "max_length": None}
    (folder / "broken.yaml").write_text(yaml.safe_dump(broken))
    bodies = [tiny_body, sleeper_body]
    with clients(server.url, lambda number: bodies[number % 2](number), count=2) as load:
        load.wait_for(20)
        newer = [*deploying(server), "--config", str(folder / "broken.yaml")]
        done = subprocess.run(
            newer, env={**server.environment, **JOINING}, cwd=folder, capture_output=True, text=True, check=False
        )
        load.wait_for(20)
    assert done.returncode == 2
    assert re.search(r"The model '(tiny|sleeper)' could not be started", done.stderr)
    assert load.statuses() == {200: len(load.replies)}


def test_an_address_that_serve_does_not_listen_on_is_refused(server: Server, folder: Path) -> None:
    """Ray Serve passes over another host or port than its own; it may be one that everybody can reach."""
    elsewhere = [*deploying(server), "--config", config(folder, "old"), "--port", "1"]
    done = subprocess.run(
        elsewhere, env={**server.environment, **JOINING}, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"listens on 127.0.0.1:{server.port}, not on 127.0.0.1:1: give" in done.stderr
    assert server.rerank("tiny")[0] == 200


def deploying(server: Server) -> list[str]:
    """A command that deploys to the server's Ray, without its config."""
    address = next(found[1] for pid in server.pids() if (found := GCS.search(command(pid))))
    return [sys.executable, "-m", "rankmill", "serve", "--address", address, "--port", str(server.port)]


def test_a_new_version_takes_over_under_load_without_a_dropped_request(server: Server, folder: Path) -> None:
    bodies = [tiny_body(number) for number in range(20)]
    with clients(server.url, lambda number: bodies[number % 20], count=4) as load:
        load.wait_for(100)
        newer = subprocess.Popen(
            [*deploying(server), "--config", config(folder, "new")],
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
    assert [reply.body for reply in load.replies if reply.status != 200] == []
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
