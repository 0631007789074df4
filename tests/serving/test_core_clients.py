"""The clients that most people have, unmodified, on every run; the others are in `clients/`."""

from collections.abc import Iterator

import pytest

from tests.serving.clients.bench import Bench, bench
from tests.serving.clients.environments import environment


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("bench")) as running:
        yield running


@pytest.mark.parametrize(
    ("requirements", "script", "cases"), [("core", "core.py", 16), ("litellm", "litellm_rerank.py", 12)]
)
def test_unmodified_clients_get_the_scores_of_the_library(
    server: Bench, requirements: str, script: str, cases: int
) -> None:
    found = server.run([environment(requirements), script])

    assert [(case.said["client"], problem) for case in found if (problem := server.problem(case))] == []
    assert len(found) == cases


@pytest.mark.slow
def test_a_wrong_answer_would_be_noticed(server: Bench) -> None:
    (case,) = server.run([environment("core"), "-c", "from task import case\ncase('c', 'cohere')(lambda: [(0, 1.0)])"])

    assert "order" in server.problem(case)
