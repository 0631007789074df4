"""A model that is somebody else's HTTP endpoint: what its trouble is for clients, operators and other requests."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from rankmill.scoring.load import check_model
from rankmill.scoring.options import ScorerOptions
from rankmill.serving.backend import ModelInfo
from rankmill.settings.gateway import GatewaySettings
from tests.serving.live import Live, live

COHERE = {"query": "hunter2", "documents": ["a", "bb"]}
TEI = {"query": "hunter2", "texts": ["a", "bb"]}


class Plugin:
    """Scores a document by its length, or answers with `status` and what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.asked = 0
        plugin = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                plugin.asked += 1
                asked = self.rfile.read(int(self.headers["Content-Length"]))
                scores = {"scores": [float(len(text)) for _, text in json.loads(asked)["pairs"]]}
                self.send_response(plugin.status)
                self.end_headers()
                self.wfile.write(json.dumps(scores).encode() if plugin.status == 200 else asked)

            def log_message(self, *_arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@contextmanager
def plugged(*, listwise: bool = False) -> Iterator[tuple[ModelInfo, Plugin]]:
    """The endpoint, and the model that it is."""
    plugin = Plugin()
    thread = Thread(target=plugin.server.serve_forever, args=(0.02,))
    thread.start()
    options = ScorerOptions(model=f"http://127.0.0.1:{plugin.server.server_port}/score", listwise=listwise)
    model = ModelInfo(name="plugin", card=check_model(options), options=options, default=True)
    try:
        yield model, plugin
    finally:
        plugin.server.shutdown()
        thread.join()
        plugin.server.server_close()


@contextmanager
def served() -> Iterator[tuple[Live, Plugin]]:
    with plugged() as (model, plugin), live(GatewaySettings(), model) as server:
        yield server, plugin


def test_trouble_of_an_endpoint_is_503_and_soon_over(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "rankmill")
    with served() as (server, plugin):
        for number, status in enumerate((503, 429, 500), start=1):
            plugin.status = status
            answer = server.post(COHERE)
            assert (answer.status, plugin.asked) == (503, 2 * number)
            assert float(answer.headers["retry-after"]) >= 1
        answer = server.post(TEI, "/rerank")
        assert (answer.status, answer.json["error_type"]) == (503, "Unhealthy")
        plugin.status = 200
        assert server.post(COHERE).status == 200
    assert "answered 2 times, at last 429" in caplog.text
    assert "hunter2" not in caplog.text  # which the endpoint repeats


def test_an_endpoint_that_refuses_is_no_reason_to_come_back(caplog: pytest.LogCaptureFixture) -> None:
    with served() as (server, plugin):
        plugin.status = 403
        answer = server.post(COHERE)
        assert (answer.status, plugin.asked) == (500, 1)
    assert "answered 403: it wants a bearer token" in caplog.text


def test_an_endpoint_that_is_gone_is_503(caplog: pytest.LogCaptureFixture) -> None:
    with served() as (server, plugin):
        plugin.server.shutdown()
        plugin.server.server_close()
        assert server.post(COHERE).status == 503
    assert "gave no answer in 2 attempts" in caplog.text


def test_texts_are_counted_by_about_four_bytes_a_token() -> None:
    with served() as (server, _):
        documents = [f"{number:4}" * 500 for number in range(400)]
        answer = server.post({"query": "1234", "documents": documents})  # 803,200 bytes, and 600,000 tokens may come
        assert (answer.status, answer.json["usage"]["total_tokens"]) == (200, 400 * (1 + 500))
        assert server.metric('rankmill_tokens_total{model="plugin"}') == 400 * 501
        assert server.metric('rankmill_batch_tokens_total{model="plugin"}') == 400 * 501


def test_a_model_without_a_tokenizer_states_no_limit() -> None:
    with served() as (server, _):
        listed = server.ask("GET", "/v1/models").json
        assert listed["data"][0]["max_model_len"] is None
        assert listed["models"][0]["context_length"] is None
        assert server.ask("GET", "/info").json["max_input_length"] is None
