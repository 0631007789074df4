"""The endpoint over real sockets: scores, limits, keys, deadlines, probes."""

import contextlib
import http.client
import itertools
import json
import select
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rankmill
from rankmill.errors import StorageError
from rankmill.retrieval.retriever import Found, Mode
from rankmill.scoring.load import check_model
from rankmill.serving.backend import ModelInfo
from rankmill.serving.dialects.routes import ROUTES
from rankmill.serving.keys import KEYS_VARIABLE
from rankmill.settings.gateway import GatewaySettings
from tests.serving.live import Live, eventually, live, tiny
from tests.tiny_models import save_tiny_model

QUERY = "how do I sort a list of numbers"
DOCUMENTS = [
    "sorted() returns a new sorted list",
    "the quick brown fox",
    "",
    "敏捷的棕色狐狸",
    "the quick brown fox",
    "water boils " * 200,
]
SMALL = GatewaySettings(
    max_body_bytes=100_000,
    max_documents=20,
    max_document_characters=3000,
    max_query_characters=500,
    max_request_tokens=1500,
    body_seconds=0.5,
    timeout_seconds=20,
)
BODY_LIMIT = 2048


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Live]:
    with live(SMALL, tiny(models), tiny(models, "other", default=False, seed=1)) as running:
        yield running


@pytest.fixture(autouse=True)
def opened(server: Live) -> Iterator[None]:
    yield
    server.backend.open.set()


def rerank(server: Live, **fields: Any) -> dict[str, Any]:
    answer = server.post({"query": QUERY, "documents": DOCUMENTS} | fields)
    assert answer.status == 200, answer.body
    found: dict[str, Any] = answer.json
    return found


def by_index(body: dict[str, Any], field: str) -> list[Any]:
    return [result[field] for result in sorted(body["results"], key=lambda result: result["index"])]


# --- scores


def test_the_endpoint_gives_the_scores_of_the_library(server: Live, models: Path) -> None:
    body = rerank(server)
    expected = rankmill.load(str(models / "tiny")).rank(QUERY, DOCUMENTS)
    assert [result["index"] for result in body["results"]] == [found.index for found in expected]
    assert [result["relevance_score"] for result in body["results"]] == pytest.approx(
        [found.score for found in expected], abs=1e-5
    )
    raw = rerank(server, activation="raw")
    assert [result["relevance_score"] for result in raw["results"]] == pytest.approx(
        [found.logit for found in expected], abs=1e-5
    )
    assert by_index(body, "truncated") == [False] * 5 + [True]


def test_long_documents_in_chunks_give_the_scores_of_the_library(server: Live, models: Path) -> None:
    words = np.random.default_rng(0).choice(["sort", "list", "water", "fox", "lazy", "dog", "boils"], (2, 120))
    documents = [" ".join(row) for row in words]
    body = rerank(server, documents=documents, long_documents="chunk")
    scores = rankmill.load(str(models / "tiny"), long_documents="chunk").score([(QUERY, text) for text in documents])
    assert by_index(body, "relevance_score") == pytest.approx(list(scores), abs=1e-5)
    cut = rerank(server, documents=documents)
    assert by_index(cut, "relevance_score") != pytest.approx(list(scores), abs=1e-5)


@pytest.mark.parametrize("name", ["other", "other-alias"])
def test_models_are_chosen_by_name_and_alias(server: Live, models: Path, name: str) -> None:
    scores = rankmill.load(str(models / "other")).score([(QUERY, text) for text in DOCUMENTS])
    body = rerank(server, model=name)
    assert body["model"] == name
    assert by_index(body, "relevance_score") == pytest.approx(list(scores), abs=1e-5)
    assert by_index(rerank(server), "relevance_score") != pytest.approx(list(scores), abs=1e-5)


def newer_version(models: Path, before: ModelInfo) -> ModelInfo:
    options = replace(before.options, model=str(save_tiny_model(models / "newer", "bert", 2)), max_length=16)
    return replace(before, card=check_model(options), options=options)


def test_versions_that_answer_in_turns_keep_no_request_waiting(models: Path) -> None:
    before = tiny(models, "changing")
    newer = newer_version(models, before)
    with live(SMALL, before) as server:
        server.backend.take_turns(newer)
        for _ in range(3):
            tries = len(server.backend.pairs)
            answer = server.post({"query": QUERY, "documents": DOCUMENTS})
            length = 16 if answer.headers["x-model-revision"] == newer.revision else None
            model = newer.options.model if length else before.options.model
            scores = rankmill.load(model, max_length=length).score([(QUERY, text) for text in DOCUMENTS])
            assert by_index(answer.json, "relevance_score") == pytest.approx(list(scores), abs=1e-5)
            assert len(server.backend.pairs) - tries <= 3


def test_a_version_that_takes_over_is_given_its_own_tokens(models: Path) -> None:
    before = tiny(models, "changing")
    newer = newer_version(models, before)
    options = newer.options
    with live(SMALL, before) as server:
        old = rerank(server)
        server.backend.take_over(newer)
        for fields in ({}, {"max_tokens_per_doc": 4}):
            answer = server.post({"query": QUERY, "documents": DOCUMENTS, **fields})
            library = rankmill.load(options.model, max_length=16, max_document_tokens=4 if fields else None)
            scores = library.score([(QUERY, text) for text in DOCUMENTS])
            assert by_index(answer.json, "relevance_score") == pytest.approx(list(scores), abs=1e-5)
            assert answer.headers["x-model-revision"] == newer.revision
        assert by_index(old, "relevance_score") != pytest.approx(list(scores), abs=1e-5)


def test_equal_pairs_are_scored_once_and_keep_their_order(server: Live) -> None:
    body = rerank(server, documents=["fox", "water", "fox", "fox"])
    assert server.backend.pairs[-1] == 2
    indices = [result["index"] for result in body["results"]]
    assert [index for index in indices if index != 1] == [0, 2, 3]
    assert len(set(by_index(body, "relevance_score"))) == 2


def test_top_n_and_min_score_leave_out_the_rest(server: Live) -> None:
    everything = rerank(server)["results"]
    assert rerank(server, top_n=2)["results"] == everything[:2]
    assert rerank(server, top_n=100)["results"] == everything
    least = everything[2]["relevance_score"]
    assert rerank(server, min_score=least)["results"] == [
        result for result in everything if result["relevance_score"] >= least
    ]
    assert rerank(server, min_score=1.6e220)["results"] == []
    assert rerank(server, min_score=-1.6e220)["results"] == everything


def test_a_request_may_lower_what_is_read_of_a_document(server: Live, models: Path) -> None:
    body = rerank(server, max_tokens_per_doc=2)
    scores = rankmill.load(str(models / "tiny"), max_document_tokens=2).score([(QUERY, text) for text in DOCUMENTS])
    assert by_index(body, "relevance_score") == pytest.approx(list(scores), abs=1e-5)
    # more than the model reads changes nothing
    assert rerank(server, max_tokens_per_doc=4096)["results"] == rerank(server)["results"]


def test_every_answer_names_the_model_the_revision_and_the_request(server: Live) -> None:
    answer = server.post({"query": QUERY, "documents": DOCUMENTS}, headers={"X-Request-Id": "mine-7"})
    assert answer.headers["x-request-id"] == "mine-7"
    assert answer.headers["x-model"] == "tiny"
    assert answer.headers["x-model-revision"] == server.backend.models()["tiny"].revision
    assert answer.headers["server-timing"].startswith("read;dur=")


def test_errors_name_the_model_too_once_it_is_known(server: Live) -> None:
    answer = server.post({"query": QUERY, "documents": DOCUMENTS * 4, "model": "other-alias"})
    assert answer.status in {400, 422}
    assert answer.headers["x-model"] == "other"
    assert answer.headers["x-model-revision"] == server.backend.models()["other"].revision
    assert "x-model" not in server.post({"query": QUERY}).headers


@pytest.mark.parametrize("given_id", ["", "two words", "x" * 129, 'quote"d', "\xe9"])
def test_an_id_that_headers_and_logs_cannot_hold_is_replaced(server: Live, given_id: str) -> None:
    ids = {server.ask("GET", "/healthz", headers={"X-Request-Id": given_id}).headers["x-request-id"] for _ in "ab"}
    assert len(ids) == 2
    assert all(found.startswith("rr-") for found in ids)


def test_tei_says_in_headers_what_it_took(server: Live) -> None:
    headers = server.post({"query": "four", "texts": ["a", "to"]}, "/rerank").headers
    assert headers["x-compute-characters"] == "11"
    assert int(headers["x-compute-tokens"]) > 4
    phases = dict(entry.split(";dur=") for entry in headers["server-timing"].split(", "))
    for name, phase in (("x-inference-time", "score"), ("x-tokenization-time", "prepare")):
        assert float(phases[phase]) - int(headers[name]) == pytest.approx(0.5, abs=0.51)  # it is cut, the other rounded
    assert headers["x-total-time"] == headers["x-compute-time"]
    assert int(headers["x-total-time"]) >= int(headers["x-inference-time"])
    assert "x-total-time" not in server.post({"query": "four", "documents": ["a"]}, "/rerank").headers


def test_own_fields_and_those_of_others_hold_together(server: Live) -> None:
    body = rerank(server, return_logits=True, top_k=2, truncation=True)
    assert [found["logit"] for found in body["results"]] == [
        found["relevance_score"] for found in rerank(server, activation="raw", top_n=2)["results"]
    ]
    too_long = server.post({"query": QUERY, "documents": DOCUMENTS, "return_logits": True, "truncation": False})
    assert (too_long.status, too_long.json["error"]["type"]) == (400, "too_long")


def test_known_scores_show_in_a_header(server: Live) -> None:
    body = {"query": "only this test asks this", "documents": ["a", "b"]}
    assert server.post(body).headers["x-cached-pairs"] == "0"
    assert server.post(body).headers["x-cached-pairs"] == "2"


def test_many_at_a_time_get_what_each_would_get_alone(server: Live) -> None:
    bodies = [
        {"query": f"query {i % 7}", "documents": [f"document {j * i}" for j in range(1 + i % 9)], "model": name}
        for i, name in enumerate(["tiny", "other"] * 20)
    ]
    with ThreadPoolExecutor(16) as clients:
        together = list(clients.map(server.post, bodies))
    for body, answer in zip(bodies, together, strict=True):
        assert answer.status == 200, answer.body
        alone = server.post(body).json["results"]
        assert [result["relevance_score"] for result in answer.json["results"]] == pytest.approx(
            [result["relevance_score"] for result in alone], abs=1e-5
        )


def test_a_body_as_large_as_is_allowed_by_default(models: Path) -> None:
    documents = ["sort " + "x" * 4000 + str(i) for i in range(1000)]
    with live(GatewaySettings(), tiny(models)) as server:
        answer = server.post({"query": QUERY, "documents": documents, "top_n": 3})
        assert answer.status == 200, answer.body
        assert len(answer.json["results"]) == 3


def test_messagepack_in_and_out(server: Live) -> None:
    body = {"query": {"text": QUERY}, "items": [{"text": text, "id": str(i)} for i, text in enumerate(DOCUMENTS)]}
    headers = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
    answer = server.post(msgpack.packb(body), "/v1/score/tiny", headers)
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"] == "application/msgpack"
    in_json = server.post(body, "/v1/score/tiny", {"Accept": "application/json"})
    assert msgpack.unpackb(answer.body)["scores"] == in_json.json["scores"]
    deep: Any = "canary"
    for _ in range(40):
        deep = [deep]
    for bad in (b"\xc1", msgpack.packb({"query": deep}), msgpack.packb(body)[:-1], json.dumps(body).encode()):
        assert server.post(bad, "/v1/score/tiny", headers).status == 400


# --- refusals


def refused(server: Live, status: int, body: Any, headers: dict[str, str] | None = None) -> dict[str, Any]:
    answer = server.post(body, headers=headers or {})
    assert answer.status == status, answer.body
    assert len(answer.body) <= BODY_LIMIT
    assert b"canary" not in answer.body
    assert answer.headers["x-request-id"]
    found: dict[str, Any] = answer.json
    return found


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"canary",
        b'{"query": NaN, "documents": ["canary"]}',
        b'{"query": "canary", "query": "canary"}',
        b'{"query": "canary \\ud800", "documents": ["canary"]}',
        b'{"query": "canary", "documents": ["canary"], "min_score": 1e999}',
        b"[" * 90_000,
        b"\xff",
    ],
)
def test_what_is_no_json_is_refused(server: Live, body: bytes) -> None:
    refused(server, 400, body)


@pytest.mark.parametrize(
    "fields",
    [
        {"documents": []},
        {"documents": ["canary"] * 21},
        {"documents": ["canary" * 1000]},
        {"query": "canary" * 100},
        {"documents": ["canary canary " * 50 + str(i) for i in range(20)]},
        {"top_n": 0},
        {"top_n": True},
        {"documents": [{"canary": "canary"}]},
        {"documents": {"canary": "canary"}},
        {"query": None},
        {"activation": "canary"},
        {"long_documents": "canary"},
    ],
)
def test_what_breaks_a_rule_is_refused(server: Live, fields: dict[str, Any]) -> None:
    answer = server.post({"query": "canary", "documents": ["canary"]} | fields)
    assert answer.status in {400, 422}, answer.body
    assert len(answer.body) <= BODY_LIMIT
    assert b"canary" not in answer.body


def test_an_error_names_the_field_that_was_sent(server: Live) -> None:
    long = "canary" * 1000
    scored = server.post({"text_1": "q", "text_2": ["d", long]}, "/score")
    assert scored.json["error"]["message"].startswith("text_2 has a text of 6,000 characters")
    item = server.post({"query": {"text": "q"}, "items": [{"text": long}]}, "/v1/score/tiny")
    assert (item.status, item.json["detail"]["code"]) == (400, "INPUT_TOO_LONG")
    assert item.json["detail"]["message"].startswith("items has a text of 6,000 characters")
    shape = server.post({"query": "q", "passages": [{"text": "d"}]}, "/v1/ranking")
    assert (shape.status, shape.json["message"]) == (422, "query must be an object.")


def test_an_unknown_model_is_refused_with_the_names_of_those_that_are_known(server: Live) -> None:
    body = refused(server, 404, {"query": "q", "documents": ["d"], "model": "canary"})
    assert "tiny, tiny-alias, other, other-alias" in body["message"]


def test_an_instruction_that_a_model_cannot_take_is_refused(server: Live) -> None:
    answer = server.post({"query": "q", "documents": ["d"], "instruction": "canary"})
    assert answer.status in {400, 422}, answer.body
    assert b"instruction" in answer.body
    assert b"canary" not in answer.body


def test_large_bodies_are_refused_unread(server: Live) -> None:
    refused(server, 413, b'{"query": "canary"}' + b" " * 100_000)
    with server.connect() as connection:
        connection.sendall(b"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nContent-Length: 67108864\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413 ")  # though not a byte of the body was sent


def test_64_megabytes_get_an_answer_and_no_reset(server: Live) -> None:
    refused(server, 413, b" " * 64 * 1024 * 1024)


def test_endless_chunks_are_refused(server: Live) -> None:
    answer = server.ask("POST", "/v1/rerank", itertools.repeat(b" " * 1000, 5000))
    assert answer.status == 413
    assert answer.headers["connection"] == "close"


def test_slow_bodies_are_refused(server: Live) -> None:
    with server.connect() as connection:
        connection.sendall(b"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        answer = connection.recv(2000)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"0.5 seconds" in answer


def test_clients_that_send_slowly_keep_nobody_out(models: Path) -> None:
    settings = GatewaySettings(max_running_requests=2, max_body_bytes=1000, body_seconds=20)
    with live(settings, tiny(models)) as server, contextlib.ExitStack() as opened:
        head = b"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n"
        slow = [opened.enter_context(server.connect()) for _ in range(20)]
        for connection in slow:
            connection.sendall(head + b"{")
        body = {"query": "q", "documents": ["d"]}
        for _ in range(3):
            assert server.post(body).status == 200
        # but what they send is kept, and counts: two full bodies are the most
        for connection in slow[:3]:
            connection.sendall(b" " * 800)
        answered, _, _ = select.select(slow[:3], [], [], 20)
        refused = answered[0].recv(2000)
        assert refused.startswith(b"HTTP/1.1 429 ")
        assert b"retry-after: 1" in refused
        for connection in slow:
            connection.close()
        eventually(lambda: server.post(body).status == 200)


def test_compressed_bodies_are_refused(server: Live) -> None:
    refused(server, 400, {"query": "q", "documents": ["d"]}, {"Content-Encoding": "gzip"})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/canary", 404),
        ("POST", "/canary", 404),
        ("GET", "/v1/rerank", 405),
        ("DELETE", "/v1/rerank", 405),
        ("POST", "/healthz", 405),
        ("OPTIONS", "/v1/rerank", 405),
    ],
)
def test_unknown_paths_and_methods(server: Live, method: str, path: str, status: int) -> None:
    answer = server.ask(method, path)
    assert answer.status == status
    assert b"canary" not in answer.body
    assert ("allow" in answer.headers) is (status == 405)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(ROUTES), st.binary(max_size=200))
def test_no_bytes_make_it_fail(server: Live, route: Any, body: bytes) -> None:
    path = route.path.replace("{model:path}", "tiny").replace("{model}", "tiny")
    assert server.ask(route.method, path, body).status in {400, 404, 422}


# --- time


def test_a_request_ends_with_its_deadline(server: Live) -> None:
    server.backend.open.clear()
    before = server.backend.cancelled
    body = refused(server, 504, {"query": "q", "documents": ["d"]}, {"X-Request-Timeout-Ms": "100"})
    assert "0.1 seconds" in body["message"]
    assert server.backend.cancelled == before + 1


def test_a_client_that_leaves_takes_its_work_with_it(server: Live) -> None:
    server.backend.open.clear()
    before = server.backend.cancelled
    body = b'{"query": "q", "documents": ["left alone"]}'
    with server.connect() as connection:
        connection.sendall(b"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        eventually(lambda: server.backend.waiting == 1)
    eventually(lambda: server.backend.cancelled == before + 1)
    assert server.backend.waiting == 0
    eventually(lambda: server.metric('rankmill_refused_requests_total{reason="GONE"}') >= 1)
    assert server.metric("rankmill_running_requests") == 0


@pytest.mark.parametrize("value", ["0", "-1", "soon"])
def test_a_deadline_that_is_none_is_refused(server: Live, value: str) -> None:
    answer = server.post({"query": "q", "documents": ["d"]}, headers={"X-Request-Timeout-Ms": value})
    assert answer.status in {400, 422}


def test_more_requests_than_it_works_on_are_told_to_come_back(models: Path) -> None:
    with live(GatewaySettings(max_running_requests=1), tiny(models)) as server:
        server.backend.open.clear()
        body = b'{"query": "q", "documents": ["d"]}'
        with server.connect() as connection:
            head = b"POST /v1/rerank HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
            connection.sendall(head % len(body) + body)
            eventually(lambda: server.backend.waiting == 1)
            answer = server.post(body)
            assert answer.status == 429
            assert answer.headers["retry-after"] == "1"
            assert server.ask("GET", "/healthz").status == 200
            server.backend.open.set()
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        assert server.post(body).status == 200


class LostIndex:
    """An index whose store does not answer."""

    modes: tuple[Mode, ...] = ("sparse",)
    columns: tuple[str, ...] = ()

    async def search(self, query: str, k: int, mode: Mode, filter: str | None = None) -> Found:  # noqa: A002, ARG002
        raise StorageError("The index cannot be read.")

    def within(self, seconds: float) -> Self:  # noqa: ARG002
        return self

    def close(self) -> None:
        pass


def test_a_lost_index_takes_no_reranking_with_it(models: Path) -> None:
    with live(GatewaySettings(), tiny(models), retriever=LostIndex()) as server:
        answer = server.post({"query": "canary"}, "/v1/search")
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert b"canary" not in answer.body
        assert server.ask("GET", "/readyz").status == 200
        assert server.post({"query": "q", "documents": ["d"]}).status == 200


# --- keys


@pytest.fixture(scope="module")
def locked(models: Path) -> Iterator[tuple[Live, Path]]:
    file = models / "keys"
    file.write_text("file-key\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEYS_VARIABLE, "environment-key")
        with live(GatewaySettings(keys_file=str(file)), tiny(models)) as running:
            yield running, file


@pytest.mark.parametrize(
    ("method", "path", "needs_key"),
    [(route.method, route.path, True) for route in ROUTES]
    + [
        ("GET", path, False)
        for path in ("/healthz", "/readyz", "/health", "/.well-known/ready", "/info", "/meta", "/v1/cluster/auth")
    ]
    + [("GET", path, False) for path in ("/", "/page.js")]
    + [("GET", path, True) for path in ("/v1/models", "/v1/models/tiny", "/metrics", "/openapi.json", "/canary")],
)
def test_all_but_the_probes_needs_a_key(locked: tuple[Live, Path], method: str, path: str, needs_key: bool) -> None:  # noqa: FBT001
    server, _ = locked
    assert (server.ask(method, path).status == 401) is needs_key
    wrong = server.ask(method, path, headers={"Authorization": "Bearer \xff canary"})
    assert (wrong.status == 401) is needs_key
    assert b"canary" not in wrong.body
    if needs_key:
        assert wrong.headers["www-authenticate"] == "Bearer"
    right = server.ask(method, path, headers={"Authorization": "Bearer environment-key"})
    assert right.status != 401


def test_keys_are_read_again_while_it_runs(locked: tuple[Live, Path]) -> None:
    server, file = locked
    body = {"query": "q", "documents": ["d"]}
    assert server.post(body, headers={"X-Api-Key": "file-key"}).status == 200
    file.write_text("another-file-key\n")
    assert server.post(body, headers={"X-Api-Key": "file-key"}).status == 401
    assert server.post(body, headers={"Authorization": "another-file-key"}).status == 200


# --- what it says about itself


def test_probes(server: Live) -> None:
    assert server.ask("GET", "/healthz").json == {"status": "alive"}
    assert server.ask("GET", "/readyz").json == {"status": "ready"}
    assert server.ask("GET", "/health").status == 200
    assert server.ask("GET", "/.well-known/ready").json == {"status": "ready"}
    head = server.ask("HEAD", "/healthz")
    assert (head.status, head.body) == (200, b"")


def test_ready_means_that_a_pair_was_scored(models: Path) -> None:
    with live(GatewaySettings(), tiny(models)) as server:
        assert server.backend.pairs == []
        assert server.ask("GET", "/readyz").status == 200
        assert server.backend.pairs == [2]
        assert server.ask("GET", "/readyz").status == 200
        assert server.backend.pairs == [2]


def test_limits_for_clients_do_not_make_it_unready(models: Path) -> None:
    with live(GatewaySettings(max_documents=1, max_request_tokens=5, max_query_characters=3), tiny(models)) as server:
        assert server.ask("GET", "/readyz").status == 200


def test_probes_at_the_start_share_one_forward_pass(models: Path) -> None:
    with live(GatewaySettings(), tiny(models)) as server, ThreadPoolExecutor(8) as probes:
        server.backend.open.clear()
        asked = [probes.submit(server.ask, "GET", "/readyz") for _ in range(8)]
        eventually(lambda: server.backend.waiting == 1)
        assert server.ask("GET", "/healthz").status == 200
        assert server.backend.waiting == 1
        server.backend.open.set()
        assert [probe.result().status for probe in asked] == [200] * 8
        assert server.backend.pairs == [2]


def test_models_and_info(server: Live) -> None:
    listed = server.ask("GET", "/v1/models").json
    assert [model["id"] for model in listed["data"]] == ["tiny", "tiny-alias", "other", "other-alias"]
    one = server.ask("GET", "/v1/models/other-alias").json
    assert (one["id"], one["root"]) == ("other-alias", "other")
    assert server.ask("GET", "/v1/models/canary").status == 404
    info = server.ask("GET", "/info").json
    assert info["model_id"] == "tiny"
    assert info["max_input_length"] == 128
    assert info["served_model_name"] == "tiny"
    assert info["model_type"] == {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    assert server.ask("GET", "/meta").json == info


def test_metrics_count_what_happened(server: Live) -> None:
    line = 'rankmill_requests_total{dialect="%s",model="tiny",route="/v1/rerank",status="2xx"}'
    line %= ROUTES[0].dialects[-1].name
    pairs, cut, repeated = (f'rankmill_{name}_pairs_total{{model="tiny"}}' for name in ("", "truncated", "repeated"))
    pairs = 'rankmill_pairs_total{model="tiny"}'
    before = [server.metric(name) for name in (line, pairs, cut, repeated)]
    rerank(server)
    eventually(lambda: server.metric(line) == before[0] + 1)
    after = [server.metric(name) for name in (line, pairs, cut, repeated)]
    assert [new - old for new, old in zip(after, before, strict=True)] == [1, 6, 1, 1]
    text = server.ask("GET", "/metrics").body.decode()
    assert f'revision="{server.backend.models()["tiny"].revision}"' in text
    assert server.metric('rankmill_request_seconds_count{model="tiny",phase="score"}') > 0


def test_no_request_can_add_to_the_metrics_names(server: Live) -> None:
    def series() -> int:
        return len(server.ask("GET", "/metrics").body.splitlines())

    bodies = [{"query": "q", "documents": ["d"], "model": "m"}, {"documents": ["d"]}]
    for body in bodies:
        server.post(body)
    server.ask("GET", "/first")
    series()
    before = series()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        for i in range(2000):
            connection.request("GET", f"/path/{i}")
            assert connection.getresponse().read()
    for i in range(20):
        server.post({"query": "q", "documents": ["d"], "model": f"m{i}"})
        server.post({f"key{i}": "q", "documents": ["d"]})
    assert series() == before


def test_the_description_covers_every_route_and_every_body_that_was_sent(server: Live) -> None:
    description = server.ask("GET", "/openapi.json").json
    for route in ROUTES:
        path = route.path.replace(":path}", "}")
        operation = description["paths"][path][route.method.lower()]
        assert {"200", "401", "413", "429", "500", "503", "504"} <= set(operation["responses"])
    for path in ("/healthz", "/readyz", "/health", "/info", "/v1/models", "/v1/models/{model}", "/metrics"):
        assert "get" in description["paths"][path]
    references = set(_references(description))
    assert references
    assert references <= {
        f"#/components/{kind}/{name}" for kind, found in description["components"].items() for name in found
    }


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, member in value.items():
            if name == "$ref":
                yield member
            yield from _references(member)
    elif isinstance(value, list):
        for member in value:
            yield from _references(member)
