"""What Prometheus reads at /metrics, after real requests: everything that operators are promised."""

import threading
from collections.abc import Iterator

import pytest

from rankmill.scoring.load import load_scorer
from rankmill.scoring.waste import padding_tokens
from rankmill.settings.gateway import GatewaySettings
from tests.serving.live import Live, eventually, live, tiny
from tests.serving.scrape import series
from tests.tiny_models import CORPUS

BODY = {"query": CORPUS[0], "documents": ["short", " ".join(CORPUS * 3), CORPUS[1], CORPUS[2], "short"]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    settings = GatewaySettings(max_documents=50)
    with live(settings, tiny(tmp_path_factory.mktemp("models"))) as running:
        yield running


def scraped(server: Live) -> dict[str, float]:
    """Every series with its value, the labels as they are printed."""
    answer = server.ask("GET", "/metrics")
    assert answer.status == 200
    return series(answer.body.decode())


def after(server: Live, body: object, line: str) -> dict[str, float]:
    """What a request changed; `line` is a series that it counts in when all else is done."""
    before = scraped(server)
    server.post(body)
    eventually(lambda: server.metric(line) > before.get(f"{line}", 0.0))
    return {name: value - before.get(name, 0.0) for name, value in scraped(server).items()}


COUNTED = (
    "pairs_total",
    "repeated_pairs_total",
    "truncated_pairs_total",
    "cached_pairs_total",
    "tokens_total",
    "batch_tokens_total",
    "padding_tokens_total",
    "forward_calls_total",
    "forward_seconds_total",
    "queued_tokens",
)
ALL = 'rankmill_request_seconds_count{model="tiny",phase="all"}'


def test_a_request_shows_in_every_series_that_is_promised(server: Live) -> None:
    changed = after(server, BODY, ALL)
    assert sum(value for name, value in changed.items() if name.startswith("rankmill_requests_total")) >= 1
    for phase in ("read", "prepare", "score", "render", "all"):
        assert changed[f'rankmill_request_seconds_count{{model="tiny",phase="{phase}"}}'] == 1
        assert changed[f'rankmill_request_seconds_sum{{model="tiny",phase="{phase}"}}'] > 0
    of_model = {name: changed[f'rankmill_{name}{{model="tiny"}}'] for name in COUNTED}
    assert of_model["pairs_total"] == 5
    assert of_model["repeated_pairs_total"] == 1
    assert of_model["cached_pairs_total"] == 0
    assert of_model["queued_tokens"] == 0
    scorer = load_scorer(server.backend.models()["tiny"].options)
    pairs = scorer.encode([CORPUS[0]] * 4, BODY["documents"][:4])
    assert of_model["truncated_pairs_total"] == pairs.truncated.sum() > 0
    assert of_model["tokens_total"] == pairs.lengths.sum() + pairs.lengths[0]
    assert of_model["batch_tokens_total"] == pairs.lengths.sum()
    assert of_model["padding_tokens_total"] == padding_tokens(scorer, pairs.lengths)
    assert of_model["forward_calls_total"] == 1
    assert of_model["forward_seconds_total"] > 0


def test_what_comes_again_is_a_hit_and_no_work(server: Live) -> None:
    body = {"query": "asked twice", "documents": [CORPUS[3], CORPUS[4]]}
    after(server, body, ALL)
    changed = after(server, body, ALL)
    assert changed['rankmill_cached_pairs_total{model="tiny"}'] == 2
    assert changed['rankmill_batch_tokens_total{model="tiny"}'] == 0
    assert changed['rankmill_forward_calls_total{model="tiny"}'] == 0


def test_what_is_refused_is_counted_by_its_reason(server: Live) -> None:
    bodies = {
        "INVALID": {"query": "q", "documents": ["d"] * 51},
        "MALFORMED": b"{",
        "UNKNOWN_MODEL": {"query": "q", "documents": ["d"], "model": "no-such-model"},
    }
    for reason, body in bodies.items():
        line = f'rankmill_refused_requests_total{{reason="{reason}"}}'
        changed = after(server, body, line)
        assert changed[line] == 1
        assert changed[ALL] == 0


def test_tokens_wait_until_they_are_scored(server: Live) -> None:
    line = 'rankmill_queued_tokens{model="tiny"}'
    server.backend.open.clear()
    asked = threading.Thread(target=server.post, args=({"query": "held up", "documents": [CORPUS[0]]},))
    asked.start()
    try:
        eventually(lambda: scraped(server).get(line, 0.0) > 0)
        assert scraped(server)["rankmill_running_requests{}"] == 1
    finally:
        server.backend.open.set()
        asked.join()
    eventually(lambda: scraped(server)[line] == 0)
    eventually(lambda: scraped(server)["rankmill_running_requests{}"] == 0)


def test_the_model_and_its_revision_are_there_from_the_start(server: Live) -> None:
    info = server.backend.models()["tiny"]
    (labels,) = [name for name in scraped(server) if name.startswith("rankmill_model_info")]
    assert f'model="tiny",revision="{info.revision}"' in labels
    assert f'fingerprint="{info.card.fingerprint}"' in labels
