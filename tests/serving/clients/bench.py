"""Servers for unmodified clients, the scripts that use those, and what is expected of their answers."""

import itertools
import json
import logging
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import rankmill
from rankmill.scoring.engines.choose import concrete
from rankmill.scoring.load import check_model
from rankmill.scoring.options import ScorerOptions
from rankmill.serving.backend import ModelInfo
from rankmill.settings.gateway import GatewaySettings
from tests.serving.live import Live, eventually, live

SCRIPTS = Path(__file__).parent / "scripts"
KEY = "a-good-key-of-a-client-0123456789"
TASK = {
    "key": KEY,
    "model": "BAAI/bge-reranker-v2-m3",  # an alias; some clients have lists of the names that they accept
    "query": "how do I undo my last commit?",
    "documents": [
        "Bananas are rich in potassium.",
        "git reset --soft HEAD~1 takes back the last commit and keeps its changes.",
        'Quotes ", backslashes \\,\nnew lines and 敏捷的棕色狐狸 survive.',
        "A commit records a snapshot of the repository.",
        "Revert a commit that others have pulled already: git revert HEAD.",
    ],
}


@dataclass(frozen=True, slots=True)
class Case:
    """What a client said that it got."""

    said: dict[str, Any]
    """The line that its script wrote."""
    paths: tuple[str, ...]
    """Routes that it asked, and the statuses."""


class Paths(logging.Handler):
    """The routes that were asked since somebody looked."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self._seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging`."""
        fields = getattr(record, "fields", {})
        if record.msg == "request":
            self._seen.append(f"{fields['route']} {fields['status']}")

    def take(self) -> tuple[str, ...]:
        """In order, each once; a line is logged just after its answer was sent, so wait for the first."""
        with suppress(AssertionError):
            eventually(lambda: bool(self._seen))
        seen, self._seen = self._seen, []
        return tuple(dict.fromkeys(seen))


@dataclass(frozen=True, slots=True)
class Bench:
    """Three servers: one with keys, an open one, and one that is too busy for any request."""

    environment: dict[str, str]
    paths: Paths
    expected: list[rankmill.RankedDocument]
    """What the library says, best first."""

    def run(self, command: Sequence[str | Path]) -> list[Case]:
        """Run a script until it ends; it writes a line per case."""
        cases = []
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=self.environment,
                cwd=SCRIPTS,
            ) as process,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if line.startswith('{"client"'):
                        cases.append(Case(json.loads(line), self.paths.take()))
                        process.stdin.write("\n")
                        process.stdin.flush()
                assert process.wait(60) == 0, errors.seek(0) or errors.read()[-3000:]
            finally:
                process.kill()
        return cases

    def problem(self, case: Case) -> str:
        """What is wrong with a case; empty if nothing is."""
        said = case.said
        if "wants" in said:
            return "" if said["wants"] in said["said"] else f"wants {said['wants']}, but {said['said']}"
        if "error" in said:
            return str(said["error"])
        got = [tuple(pair) for pair in said["got"]]
        expected = self._scores(said["gives"])
        if [index for index, _ in got] != [index for index, _ in expected]:
            return f"order {got}, not {expected}"
        if [score for _, score in got] != pytest.approx([score for _, score in expected], abs=1e-5):
            return f"scores {got}, not {expected}"
        return ""

    def _scores(self, gives: str) -> list[tuple[int, float]]:
        if gives == "logit":
            return [(found.index, found.logit) for found in self.expected]
        low, high = self.expected[-1].score, self.expected[0].score
        if gives == "minmax":
            return [(found.index, (found.score - low) / (high - low)) for found in self.expected]
        return [(found.index, found.score) for found in self.expected]


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """Run the three servers until the end of the `with` block."""
    keys = folder / "keys"
    keys.write_text(f"{KEY}\n")
    options = concrete(ScorerOptions(model="builtin", threads=1))
    aliases = (str(TASK["model"]),)
    model = ModelInfo(name="builtin", aliases=aliases, card=check_model(options), options=options, default=True)
    log, paths = logging.getLogger("rankmill.serving.recorder"), Paths()
    level = log.level
    with ExitStack() as stack:
        locked = stack.enter_context(live(GatewaySettings(keys_file=str(keys)), model))
        free = stack.enter_context(live(GatewaySettings(), model))
        busy = stack.enter_context(live(GatewaySettings(max_running_requests=1, timeout_seconds=3600), model))
        stack.enter_context(_occupied(busy))
        stack.callback(log.setLevel, level)
        stack.callback(log.removeHandler, paths)
        log.setLevel(logging.DEBUG)
        log.addHandler(paths)
        urls = {
            name: f"http://127.0.0.1:{server.port}"
            for name, server in {"URL": locked, "OPEN": free, "BUSY": busy}.items()
        }
        passed = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        expected = rankmill.load("builtin").rank(TASK["query"], TASK["documents"])  # type: ignore[arg-type]
        gaps = [better.score - worse.score for better, worse in itertools.pairwise(expected)]
        assert min(gaps) > 1e-4, "scores so close say nothing about the order"
        yield Bench(passed | urls | {"TASK": json.dumps(TASK), "OMP_NUM_THREADS": "1"}, paths, expected)


@contextmanager
def _occupied(server: Live) -> Iterator[None]:
    """Give the server a request that does not end before the `with` block."""
    server.backend.open.clear()
    body = b'{"query":"q","documents":["d"]}'
    with server.connect() as connection:
        connection.sendall(
            b"POST /rerank HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        eventually(lambda: server.backend.waiting == 1)
        yield
