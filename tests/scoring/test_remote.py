"""Scorers behind an HTTP endpoint, asked through a real server: retries, answers that are wrong, tokens."""

import json
import logging
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import numpy as np
import pytest

from rankmill.errors import ModelError, NonFiniteScoreError, UsageError
from rankmill.scoring.load import check_model, load_encoder, load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.remote import Patience, RemoteScorer
from tests.scoring.reference import all_pairs

QUICK = Patience(pairs_per_request=4, attempts=3, first_wait=0.01, longest_wait=1.0, answer_timeout=0.3)


@dataclass
class Endpoint:
    """What the server does: the answers that it gives first, and what it was asked."""

    url: str = ""
    first: list[Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=list)
    requests: list[list[list[str]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    token: str | None = None


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A running endpoint that scores a pair by the lengths of its texts."""
    served = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            pairs = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["pairs"]
            served.requests.append(pairs)
            served.headers.append(dict(self.headers.items()))
            if served.first:
                served.first.pop(0)(self)
            elif served.token is not None and self.headers["Authorization"] != f"Bearer {served.token}":
                reply(self, 401, {"detail": "who are you"})
            else:
                reply(self, 200, {"scores": [len(query) - len(text) / 1000 for query, text in pairs]})

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/score"
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def reply(handler: BaseHTTPRequestHandler, status: int, content: Any, **headers: str) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    handler.send_response(status)
    for key, value in {
        "Content-Length": str(len(body)),
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }.items():
        handler.send_header(key, value)
    handler.end_headers()
    handler.wfile.write(body)


def answer(status: int, content: Any, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda handler: reply(handler, status, content, **headers)


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def fall_asleep(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(0.6)
    handler.close_connection = True


def scorer_for(endpoint: Endpoint, patience: Patience = QUICK, token: str | None = None) -> RemoteScorer:
    return RemoteScorer(check_model(ScorerOptions(model=endpoint.url)), patience, token)


def ask(scorer: RemoteScorer, count: int = 1) -> list[float]:
    return [float(score) for score in scorer.logits(scorer.encode(["query"] * count, ["text"] * count))]


def test_all_kinds_of_text_in_requests_of_a_bounded_size(endpoint: Endpoint) -> None:
    queries, texts = all_pairs()
    scorer = load_scorer(ScorerOptions(model=endpoint.url))
    expected = [len(query) - len(text) / 1000 for query, text in zip(queries, texts, strict=True)]
    np.testing.assert_allclose(scorer.logits(scorer.encode(queries * 3, texts * 3)), expected * 3, rtol=1e-6)
    assert [len(pairs) for pairs in endpoint.requests] == [64, 64, 16]
    assert endpoint.requests[0][:2] == [[queries[0], texts[0]], [queries[1], texts[1]]]
    assert endpoint.headers[0]["Content-Type"] == "application/json"
    assert "Authorization" not in endpoint.headers[0]


def test_nothing_in_nothing_out(endpoint: Endpoint) -> None:
    scorer = scorer_for(endpoint)
    assert scorer.logits(scorer.encode([], [])).shape == (0,)
    assert endpoint.requests == []


@pytest.mark.parametrize("trouble", [answer(503, b"busy"), answer(429, b""), answer(500, b"oh"), hang_up, fall_asleep])
def test_trouble_that_passes(endpoint: Endpoint, trouble: Callable[[BaseHTTPRequestHandler], None]) -> None:
    endpoint.first = [trouble, trouble]
    assert ask(scorer_for(endpoint)) == pytest.approx([4.996])
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (answer(503, b"model is loading"), "answered 3 times, at last 503: 'model is loading'"),
        (hang_up, "gave no answer in 3 attempts .ProtocolError"),
        (fall_asleep, "gave no answer in 3 attempts .ReadTimeoutError.*[Tt]imed out"),
    ],
)
def test_trouble_that_stays(endpoint: Endpoint, trouble: Callable[[BaseHTTPRequestHandler], None], words: str) -> None:
    endpoint.first = [trouble] * 3
    with pytest.raises(ModelError, match=words) as caught:
        ask(scorer_for(endpoint))
    assert endpoint.url in str(caught.value)
    assert len(endpoint.requests) == 3


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    with pytest.raises(ModelError, match=r"gave no answer in 3 attempts .*refused.*Check the address"):
        ask(RemoteScorer(check_model(ScorerOptions(model=url)), QUICK))


def test_retry_after_is_waited_for_but_not_for_an_hour(endpoint: Endpoint) -> None:
    endpoint.first = [answer(429, b"", Retry_After="1")]
    started = time.monotonic()
    ask(scorer_for(endpoint))
    assert time.monotonic() - started >= 1.0
    endpoint.first = [answer(503, b"", Retry_After="3600")]
    started = time.monotonic()
    ask(scorer_for(endpoint))
    assert 1.0 <= time.monotonic() - started < 600.0  # on a machine with other work to do, too


def test_waits_are_spread_by_chance(endpoint: Endpoint) -> None:
    """Or all workers that a busy endpoint turned away would come back at the same moment."""
    retries = scorer_for(endpoint)._pool.connection_pool_kw["retries"]
    for _ in range(2):
        retries = retries.increment("POST", "/", error=ConnectionResetError())
    assert len({retries.get_backoff_time() for _ in range(20)}) > 10


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (answer(200, {"scores": [0.5]}), "answered 1 scores for 2 pairs"),
        (answer(200, {"scores": {"a": 1}}), "scores that are no list for 2 pairs"),
        (answer(200, {"results": []}), r"answered '\{\"results\": \[\]\}'; it must answer"),
        (answer(200, b"<html>"), "answered '<html>'; it must answer"),
        (answer(200, [1, 2]), "it must answer"),
        (answer(200, {"scores": [[0.1], [0.2]]}), r"returned an array of shape \(2, 1\) for 2 pairs"),
        (answer(200, {"scores": ["a", "b"]}), "no list of numbers"),
        (answer(404, b"not here"), "answered 404: 'not here'"),
        (answer(400, b"x" * 500), r"answered 400: 'x{200}' …"),
        (answer(307, b"", Location="http://elsewhere/"), "points to http://elsewhere/; redirects are not followed"),
    ],
)
def test_answers_that_are_wrong_are_final(
    endpoint: Endpoint, wrong: Callable[[BaseHTTPRequestHandler], None], words: str
) -> None:
    endpoint.first = [wrong]
    with pytest.raises(ModelError, match=words):
        ask(scorer_for(endpoint), count=2)
    assert len(endpoint.requests) == 1


def test_scores_that_are_not_finite_name_their_pairs_across_requests(endpoint: Endpoint) -> None:
    endpoint.first = [answer(200, b'{"scores": [0.5, NaN, 0.5, 0.5]}'), answer(200, {"scores": [None, 1e300]})]
    with pytest.raises(NonFiniteScoreError, match=r"3 of 6 pairs \(positions 1, 4, 5\)") as caught:
        ask(scorer_for(endpoint), count=6)
    assert caught.value.pairs == (1, 4, 5)
    assert pickle.loads(pickle.dumps(caught.value)).pairs == (1, 4, 5)  # noqa: S301 - our own bytes


def test_a_bearer_token_from_the_environment(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.token = "s3cret-t0ken"  # noqa: S105 - made up
    with pytest.raises(ModelError, match=r"answered 401: it wants a bearer token .*RANKMILL_SCORER_TOKEN"):
        ask(scorer_for(endpoint))
    monkeypatch.setenv("RANKMILL_SCORER_TOKEN", "another")
    with pytest.raises(ModelError, match="answered 401"):
        ask(load_remote(endpoint))
    monkeypatch.setenv("RANKMILL_SCORER_TOKEN", endpoint.token)
    caplog.set_level(logging.DEBUG)
    endpoint.first = [answer(503, b"busy")]
    scorer = load_remote(endpoint)
    assert ask(scorer) == pytest.approx([4.996])
    endpoint.first = [answer(400, b"no")]
    with pytest.raises(ModelError) as caught:
        ask(scorer)
    for shown in (caplog.text, str(caught.value), repr(scorer), repr(scorer.card), scorer.fingerprint):
        assert endpoint.token not in shown


def load_remote(endpoint: Endpoint) -> RemoteScorer:
    scorer = load_scorer(ScorerOptions(model=endpoint.url))
    assert isinstance(scorer, RemoteScorer)
    return scorer


def test_a_token_that_no_header_could_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKMILL_SCORER_TOKEN", "two\nlines")
    with pytest.raises(ModelError, match="RANKMILL_SCORER_TOKEN holds blanks") as caught:
        load_scorer(ScorerOptions(model="http://localhost/score"))
    assert "lines" not in str(caught.value).replace("line ends", "")


def test_a_card() -> None:
    card = check_model(ScorerOptions(model="https://scores.example.org/v1"))
    assert (card.model, card.kind, card.folder, card.revision) == ("https://scores.example.org/v1", "http", None, None)
    assert (card.activation, card.parameters) == ("identity", 0)
    other = check_model(ScorerOptions(model="https://scores.example.org/v2"))
    assert other.fingerprint != card.fingerprint
    assert load_scorer(ScorerOptions(model=card.model)).fingerprint == card.fingerprint


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://", "is not a URL of an endpoint"),
        ("http://host:notaport/", "is not a URL"),
        ("https://host/score#part", "is not a URL of an endpoint"),
        ("https://user:pass@host/score", "at host holds a user name or a password.*RANKMILL_SCORER_TOKEN"),
        ("ftp://host/score", "is no http or https address"),
    ],
)
def test_addresses_that_cannot_be_asked(url: str, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        check_model(ScorerOptions(model=url))
    assert "user:pass" not in str(caught.value)


def test_settings_that_cannot_reach_it() -> None:
    with pytest.raises(UsageError, match="--max-length was given with --model 'http://localhost/'"):
        check_model(ScorerOptions(model="http://localhost/", max_length=100))


def test_checking_and_encoding_need_no_torch() -> None:
    code = (
        "import sys; from rankmill.scoring.load import check_model, load_encoder, ScorerOptions; "
        "options = ScorerOptions(model='http://localhost/'); check_model(options); "
        "load_encoder(options).encode(['a'], ['b']); "
        "print([name for name in ('torch', 'transformers', 'ray') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.strip() == "[]"
    pickle.dumps(load_encoder(ScorerOptions(model="http://localhost/")))


def test_a_list_is_one_request_however_long_it_is(endpoint: Endpoint) -> None:
    asked = ScorerOptions(model=endpoint.url, listwise=True)
    assert check_model(asked).listwise
    assert check_model(asked).fingerprint != check_model(replace(asked, listwise=False)).fingerprint
    scorer = load_scorer(asked)
    queries, texts = ["long"] * 200 + ["short"] * 2, [str(n) for n in range(202)]
    expected = [len(query) - len(text) / 1000 for query, text in zip(queries, texts, strict=True)]
    np.testing.assert_allclose(scorer.logits(scorer.encode(queries, texts)), expected, rtol=1e-6)
    assert [len(request) for request in endpoint.requests] == [200, 2]
    assert endpoint.requests[1] == [["short", "200"], ["short", "201"]]
