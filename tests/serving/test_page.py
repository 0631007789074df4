"""The page at `/`, over real sockets, and in a real browser where it needs one."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from rankmill.scoring.engines.choose import concrete
from rankmill.scoring.load import check_model
from rankmill.scoring.options import ScorerOptions
from rankmill.serving.backend import ModelInfo
from rankmill.serving.page import PATHS
from rankmill.serving.search import SearchAnswer, SearchBody
from rankmill.settings.gateway import GatewaySettings
from tests.serving.live import Live, live, tiny

KEY = "correct-horse"
ARTIFACTS = Path(__file__).parents[2] / "artifacts"
CHROMIUM = shutil.which("chromium")
"""The system's; without one, what `playwright install chromium` brought."""
HOSTILE = '<img src=x onerror="document.title=\'owned\'"> it\'s \\ $HOME `id` "quoted"'
QUERY = "how do I remove a folder and everything in it"
DOCUMENTS = [
    "os.listdir: Return a list containing the names of the entries in the directory.",
    HOSTILE,
    "shutil.rmtree: Delete an entire directory tree.",
    "os.mkdir: Create a directory.",
    "water boils " * 600,
]


@pytest.fixture(scope="module")
def builtin() -> ModelInfo:
    options = concrete(ScorerOptions(threads=1))
    return ModelInfo(name="builtin", aliases=("usual",), card=check_model(options), options=options, default=True)


@pytest.fixture(scope="module")
def server(builtin: ModelInfo) -> Iterator[Live]:
    with live(GatewaySettings(), builtin) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(builtin: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"{KEY}\n")
    with live(GatewaySettings(keys_file=str(keys)), builtin) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # every container refuses Chromium its own sandbox, and what it opens here is ours
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab that fails the test over errors in its console, violations of the policy among them; not over refusals."""
    with browser.new_context(viewport={"width": 1440, "height": 1000}) as context:
        tab = context.new_page()
        said: list[str] = []
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        yield tab
        assert [line for line in said if not line.startswith("Failed to load resource")] == []


def rerank(page: Page, documents: list[str] = DOCUMENTS) -> None:
    page.get_by_label("Query").fill(QUERY)
    page.get_by_label("Documents", exact=True).fill("\n".join(documents))
    page.get_by_role("button", name="Rerank").click()


def ranking(page: Page) -> list[int]:
    """Positions of the documents shown, best first."""
    expect(page.locator("#after li").first).to_be_visible()
    indices = page.locator("#after li").evaluate_all("items => items.map((item) => item.dataset.index)")
    return [int(index) for index in indices]


def run(code: list[str], **environment: str) -> str:
    plain = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    finished = subprocess.run(code, env=plain | environment, capture_output=True, text=True, check=True, timeout=60)
    return finished.stdout


# --- the files


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("closed")
    (folder / "keys").write_text(f"{KEY}\n")
    with live(GatewaySettings(keys_file=str(folder / "keys")), tiny(folder)) as running:
        yield running


@pytest.mark.parametrize("path", PATHS)
def test_its_files_need_no_key_and_are_sent_once(closed: Live, path: str) -> None:
    answer = closed.ask("GET", path)
    assert answer.status == 200
    assert answer.body
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert closed.ask("HEAD", path).headers["content-length"] == str(len(answer.body))

    again = closed.ask("GET", path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    assert closed.ask("GET", path, headers={"If-None-Match": '"other"'}).status == 200
    assert closed.ask("GET", "/v1/models").status == 401


def test_it_asks_for_nothing_from_elsewhere(closed: Live) -> None:
    for path in PATHS:
        text = closed.ask("GET", path).body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text
        assert "https:" not in text
        assert "innerHTML" not in text


# --- in a browser


@pytest.mark.slow
def test_both_orders_scores_and_cuts_are_shown(server: Live, page: Page) -> None:
    expected = server.post({"query": QUERY, "documents": [text.strip() for text in DOCUMENTS]}).json["results"]
    page.goto(f"http://127.0.0.1:{server.port}/")
    rerank(page)
    assert ranking(page) == [result["index"] for result in expected]
    assert ranking(page)[0] == 2
    assert ranking(page) != sorted(ranking(page))

    best = page.locator("#after li").first
    expect(best).to_contain_text("Delete an entire directory tree")
    expect(best).to_contain_text("up by 2, was 3")
    expect(best).to_contain_text(f"score {expected[0]['relevance_score']:.4f}")
    expect(page.locator("#before li").first).to_contain_text("os.listdir")
    cut = [result["index"] for result in expected if result["truncated"]]
    assert cut == [4]
    expect(page.locator("#after .flag")).to_have_count(1)
    expect(page.locator("#facts")).to_contain_text("scoring")
    expect(page.locator("#facts")).to_contain_text("round trip")
    expect(page.get_by_role("status")).to_have_text("5 documents reranked, 2 of them moved up.")


@pytest.mark.slow
def test_hostile_text_stays_text(server: Live, page: Page) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/")
    rerank(page)
    expect(page.locator(f"#after li[data-index='{DOCUMENTS.index(HOSTILE)}'] .text")).to_have_text(HOSTILE)
    assert page.locator("#results img").count() == 0
    assert page.title() == "rankmill"


@pytest.mark.slow
def test_a_key_is_asked_for_and_never_shown(guarded: Live, page: Page) -> None:
    page.goto(f"http://127.0.0.1:{guarded.port}/")
    key = page.get_by_label("API key")
    expect(key).to_be_focused()
    rerank(page)
    expect(page.get_by_role("alert")).to_have_text("This server asks for an API key.")
    key.fill("wrong")
    page.get_by_role("button", name="Rerank").click()
    expect(page.get_by_role("alert")).to_have_text("The server does not accept this API key.")
    key.fill(KEY)
    page.get_by_role("button", name="Rerank").click()
    assert ranking(page)[0] == 2
    expect(page.get_by_role("alert")).to_be_hidden()
    code = page.locator("#code").inner_text()
    assert "$RANKMILL_API_KEY" in code
    assert KEY not in page.locator("body").inner_text()


@pytest.mark.slow
@pytest.mark.parametrize("keyed", [False, True], ids=["open", "with a key"])
def test_the_code_shown_gives_the_same_answer(server: Live, guarded: Live, page: Page, keyed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    page.goto(f"http://127.0.0.1:{(guarded if keyed else server).port}/")
    if keyed:
        page.get_by_label("API key").fill(KEY)
    rerank(page)
    shown = ranking(page)
    curl = page.locator("#code").inner_text()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == curl
    answer = json.loads(run(["sh", "-c", curl], RANKMILL_API_KEY=KEY))
    assert [result["index"] for result in answer["results"]] == shown

    page.get_by_role("radio", name="Python").check()
    python = page.locator("#code").inner_text()
    lines = run([sys.executable, "-c", python], RANKMILL_API_KEY=KEY).splitlines()
    assert len(lines) == len(shown)
    assert all(f"'index': {index}," in line for index, line in zip(shown, lines, strict=True))


@pytest.mark.slow
def test_models_options_and_paragraphs_travel(server: Live, page: Page) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/")
    expect(page.get_by_label("Model").locator("option")).to_have_text(["builtin (default)", "usual (alias of builtin)"])
    page.get_by_label("Model").select_option("usual")
    page.get_by_label("Documents", exact=True).fill("first\nstill first\n\nsecond")
    expect(page.locator("#count")).to_have_text("2 documents")
    page.get_by_text("Options").click()
    page.get_by_label("Keep the best").fill("1")
    page.get_by_label("Scores").select_option("raw")
    page.get_by_label("Query").fill(QUERY)
    page.get_by_label("Query").press("Control+Enter")
    assert len(ranking(page)) == 1
    expect(page.locator("#before .left-out")).to_have_count(1)
    score, logit = page.locator("#after .number b").all_inner_texts()
    assert score == logit
    expect(page.locator("#facts")).to_contain_text("usual")


@pytest.mark.slow
def test_a_search_shows_both_stages(server: Live, page: Page) -> None:
    """The page alone: the answers are what the search's own model writes, handed over at the browser's network."""
    common = {"score": 0.5, "logit": 0.0, "truncated": False, "columns": {}}
    found = [
        {"document_id": 7, "rank": 1, "retrieval_rank": 2, "retrieval_score": 3.25, "title": "T", "text": "seven"},
        {"document_id": "a", "rank": 2, "retrieval_rank": 1, "retrieval_score": 9.5, "title": "", "text": HOSTILE},
    ]
    answer = SearchAnswer.model_validate({
        "id": "rr-1", "model": "builtin", "model_revision": "r", "mode": "sparse", "retrieved": 2, "reranked": 2,
        "results": [result | common for result in found],
        "timings_ms": {"retrieve": 1.5, "rerank": 2.5, "total": 4.0},
    })  # fmt: skip
    sent: list[Any] = []

    def respond(route: Route) -> None:
        sent.append(route.request.post_data_json)
        if len(sent) == 1:
            route.fulfill(body=answer.model_dump_json(), content_type="application/json")
        else:
            route.fulfill(status=503, json={"message": "The index cannot be read."})

    page.route("**/openapi.json", lambda route: route.fulfill(json={"paths": {"/v1/search": {}}}))
    page.route("**/v1/search", respond)
    page.goto(f"http://127.0.0.1:{server.port}/")
    page.get_by_role("radio", name="Search").check()
    page.get_by_label("Query").fill(QUERY)
    page.get_by_label("Documents to find").fill("5")
    page.get_by_label("Filter").fill("year > 2020")
    page.get_by_role("button", name="Search and rerank").click()
    assert ranking(page) == [1, 0]
    (body,) = sent
    assert body == {"query": QUERY, "retrieve_k": 5, "top_k": 5, "filter": "year > 2020", "model": "builtin"}
    SearchBody.model_validate(body)
    expect(page.locator("#before li").first).to_contain_text(f"a{HOSTILE}score 9.5000")
    expect(page.locator("#after li").first).to_contain_text("T seven")
    expect(page.locator("#facts")).to_contain_text("retrieve1.5 ms")
    page.get_by_role("button", name="Search and rerank").click()
    expect(page.get_by_role("alert")).to_have_text("This server cannot search: The index cannot be read.")


@pytest.mark.slow
def test_errors_are_said_in_words(server: Live, page: Page) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/")
    page.get_by_role("button", name="Rerank").click()
    expect(page.get_by_role("alert")).to_have_text("Type a query first.")
    page.get_by_label("Query").fill(QUERY)
    page.get_by_label("Query").press("Enter")
    expect(page.get_by_role("alert")).to_have_text("Paste some documents first, one a line.")
    page.route("**/v1/rerank", lambda route: route.abort())
    rerank(page, ["one", "two"])
    expect(page.get_by_role("alert")).to_have_text("The server cannot be reached. Is it still running?")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1440, 1000), (390, 844)], ids=["wide", "narrow"])
def test_it_fits_and_is_kept_as_a_picture(
    server: Live, browser: Browser, scheme: Literal["light", "dark"], width: int, height: int
) -> None:
    ARTIFACTS.mkdir(exist_ok=True)
    with browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
    ) as context:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.screenshot(path=ARTIFACTS / f"page-{scheme}-{width}-empty.png", full_page=True)
        page.get_by_role("button", name="Fill in an example").click()
        assert ranking(page) != sorted(ranking(page))
        page.screenshot(path=ARTIFACTS / f"page-{scheme}-{width}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("#strands path").count() == (8 if width > 700 else 0)
