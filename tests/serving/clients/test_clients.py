"""Unmodified clients of other rerank services, pointed at this one: their scores are ours, and so is their order."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.serving.clients.bench import Bench, Case, bench
from tests.serving.clients.environments import environment, npm

pytestmark = pytest.mark.slow

TABLE = Path(__file__).parents[3] / "artifacts" / "clients.md"
EQUAL = {
    "score": "scores and order equal",
    "logit": "logits and order equal",
    "unordered": "scores equal, order not looked at",
    "minmax": "scores equal after the client's own min-max, order not looked at",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("bench")) as running:
        yield running


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    """Rows; written as Markdown when all clients had their turn."""
    rows: list[str] = []
    yield rows
    TABLE.parent.mkdir(exist_ok=True)
    head = "| client | version | path and status | result |\n|---|---|---|---|\n"
    TABLE.write_text(head + "".join(f"{row}\n" for row in rows))


@pytest.mark.parametrize(
    ("requirements", "script", "cases"),
    [
        ("core", "core.py", 16),
        ("core", "langchain_newest.py", 2),
        ("litellm", "litellm_rerank.py", 12),
        ("frameworks", "cohere_clients.py", 6),
        ("frameworks", "frameworks.py", 16),
        ("haystack", "haystack3.py", 3),
        ("vendors", "vendors.py", 17),
        ("sie", "sie.py", 7),
    ],
)
def test_unmodified_clients_get_the_scores_of_the_library(
    server: Bench, table: list[str], requirements: str, script: str, cases: int
) -> None:
    python = environment(requirements, at_least=(3, 12) if requirements == "sie" else (3, 11))
    look(server, table, [python, script], cases)


def test_unmodified_clients_of_npm_get_them_too(server: Bench, table: list[str]) -> None:
    look(server, table, npm("npm.mjs"), 19)


def look(server: Bench, table: list[str], command: Sequence[str | Path], cases: int) -> None:
    """Run a script of that many cases."""
    found = server.run(command)

    table += [row(server, case) for case in found]
    assert [(case.said["client"], problem) for case in found if (problem := server.problem(case))] == []
    assert len(found) == cases


def row(server: Bench, case: Case) -> str:
    """A case as a line of the table."""
    said = case.said
    good = f"raises {said['wants']}" if "wants" in said else EQUAL[said["gives"]]
    package, version = said["version"].split(" ")
    result = "FAILED" if server.problem(case) else good
    return f"| {said['client']} | {package} {version} | {', '.join(case.paths)} | {result} |"
