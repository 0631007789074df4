"""What is logged, and what never is."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rankmill.serving.keys import KEYS_VARIABLE
from rankmill.serving.logs import JsonFormatter, event, redact
from rankmill.settings.gateway import GatewaySettings
from tests.serving.live import HeldBackend, Live, eventually, live, tiny

CANARY = "canary-7f3a"
KEY = {"Authorization": "Bearer good-key"}


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Everything that any logger of this process writes, as it would reach stderr."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield written
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Live]:
    monkeypatch.setenv(KEYS_VARIABLE, "good-key")
    with live(GatewaySettings(max_body_bytes=10_000), tiny(tmp_path)) as running:
        yield running


def events(lines: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_no_text_and_no_key_reaches_the_logs_or_the_metrics(server: Live, lines: io.StringIO) -> None:
    body = {"query": CANARY, "documents": [CANARY], "return_documents": True}
    assert CANARY.encode() in server.post(body, headers=KEY).body
    bad: list[Any] = [
        body | {"documents": [CANARY, 5]},
        body | {CANARY: CANARY},
        body | {"model": CANARY},
        body | {"instruction": CANARY},
        body | {"top_n": CANARY},
        f'{{"{CANARY}"'.encode(),
        f'["{CANARY} \\ud800"]'.encode(),
        (CANARY * 10_000).encode(),
    ]
    for value in bad:
        assert server.post(value, headers=KEY).status >= 400 or CANARY in value
    server.post(body, headers={"Authorization": f"Bearer {CANARY}", "X-Api-Key": CANARY, "Cookie": CANARY})
    server.ask("GET", f"/{CANARY}?key={CANARY}", headers=KEY)
    server.ask(CANARY.upper(), "/healthz")
    server.ask("GET", f"/v1/models/{CANARY}", headers=KEY)
    metrics = server.ask("GET", "/metrics", headers=KEY).body
    eventually(lambda: sum(entry["event"] == "request" for entry in events(lines)) == len(bad) + 5)
    logged = lines.getvalue().lower()
    assert CANARY not in logged
    assert "good-key" not in logged
    assert CANARY.encode() not in metrics.lower()


def test_a_request_is_one_line_with_its_numbers(server: Live, lines: io.StringIO) -> None:
    headers = KEY | {"X-Request-Id": "mine-7"}
    server.post({"query": "a", "documents": ["b", "c"]}, headers=headers)
    server.post({"query": "a"}, headers=headers)

    def found() -> list[dict[str, Any]]:
        return [entry for entry in events(lines) if entry.get("request_id") == "mine-7"]

    eventually(lambda: len(found()) == 2)
    good, bad = found()
    assert (good["status"], good["route"], good["model"], good["documents"]) == (200, "/v1/rerank", "tiny", 2)
    assert good["reason"] is None
    assert set(good["milliseconds"]) == {"read", "prepare", "score", "render", "all"}
    assert bad["reason"] == "INVALID"


def test_a_bug_is_logged_with_its_place_and_without_its_message(
    server: Live, lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> Any:
        raise ZeroDivisionError(CANARY)

    monkeypatch.setattr(HeldBackend, "score", broken)
    answer = server.post({"query": CANARY, "documents": [CANARY]}, headers=KEY)
    assert answer.status == 500
    assert CANARY.encode() not in answer.body
    eventually(lambda: any(entry["event"] == "bug" for entry in events(lines)))
    bug = next(entry for entry in events(lines) if entry["event"] == "bug")
    assert bug["error"] == "ZeroDivisionError"
    assert any("test_logs.py" in place and "broken" in place for place in bug["where"])
    assert bug["request_id"] == answer.headers["x-request-id"]
    assert CANARY not in lines.getvalue()


def test_tracebacks_are_logged_without_messages(lines: io.StringIO) -> None:
    try:
        int(CANARY)
    except ValueError:
        logging.getLogger("elsewhere").exception("it failed")
    (entry,) = events(lines)
    assert (entry["error"], entry["event"]) == ("ValueError", "it failed")
    assert CANARY not in lines.getvalue()


@pytest.mark.parametrize(
    "message",
    [
        f"Authorization: Bearer {CANARY}",
        f"headers {{'authorization': 'Bearer {CANARY}', 'x': 1}}",
        f"sent with bearer {CANARY}.",
        f"(b'x-api-key', b'{CANARY}')",
        f"GET https://bucket/key?X-Amz-Signature={CANARY}&X-Amz-Credential={CANARY}",
        f"aws_secret_access_key = {CANARY}",
        f'{{"password": "{CANARY}"}}',
        f"token={CANARY}",
    ],
)
def test_keys_in_the_messages_of_others_are_masked(message: str) -> None:
    assert CANARY not in redact(message)


@pytest.mark.parametrize("message", ["3 tokens of 512", "the bearer", "model: loaded in 1.0 s", "tokens: 12"])
def test_other_messages_stay_as_they_are(message: str) -> None:
    assert redact(message) == message


def test_a_process_writes_each_line_once() -> None:
    script = """
import logging
from rankmill.serving.logs import log_json
log_json()
log_json()
logging.getLogger("rankmill.serving").info("hello")
logging.getLogger("rankmill").debug("not this")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    (line,) = ended.stderr.splitlines()
    assert json.loads(line)["event"] == "hello"


def test_events_are_json_even_with_fields_that_are_not() -> None:
    logger = logging.getLogger("alone")
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    event(logger, logging.WARNING, "something", path=Path("/a"), count=3)
    entry = json.loads(written.getvalue())
    assert (entry["event"], entry["level"], entry["path"], entry["count"]) == ("something", "warning", "/a", 3)
