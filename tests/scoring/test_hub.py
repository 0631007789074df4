"""Models by hub id, from a small hub on loopback: what is fetched, what is pinned, and what happens without it."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from rankmill.errors import ModelError
from rankmill.scoring import hub as hub_module
from rankmill.scoring.load import check_model
from rankmill.scoring.options import ScorerOptions

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "someone/tiny-reranker"


@dataclass
class Hub:
    """The few requests that a download makes, answered from a folder."""

    folder: Path
    requests: list[str] = field(default_factory=list)
    silent: bool = False
    """Accept connections and say nothing, as a firewall may."""
    closing: Event = field(default_factory=Event)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body for a path."""
        self.requests.append(path)
        if self.silent:
            self.closing.wait(30)
        path = path.split("?", maxsplit=1)[0]
        if path.startswith(f"/api/models/{NAME}/tree/"):
            return 200, {}, json.dumps([self._entry(file) for file in self._files()]).encode()
        if path in (f"/api/models/{NAME}", *(f"/api/models/{NAME}/revision/{r}" for r in ("main", COMMIT))):
            return 200, {}, json.dumps({"id": NAME, "modelId": NAME, "sha": COMMIT, "siblings": []}).encode()
        if path.startswith(f"/api/models/{NAME}/revision/"):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        name = path.removeprefix(f"/{NAME}/resolve/{COMMIT}/")
        if name in self._files():
            body = (self.folder / name).read_bytes()
            return 200, {"ETag": f'"{_oid(body)}"', "X-Repo-Commit": COMMIT}, body
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"

    def _files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def _entry(self, name: str) -> dict[str, Any]:
        body = (self.folder / name).read_bytes()
        return {"type": "file", "path": name, "size": len(body), "oid": _oid(body)}

    def fetched(self) -> set[str]:
        """Names of the files that were asked for."""
        return {path.rsplit("/resolve/", 1)[1].split("/", 1)[1] for path in self.requests if "/resolve/" in path}


def _oid(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:40]


@pytest.fixture
def hub(tiny: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running hub with one model, and an empty cache that knows no other hub."""
    folder = Path(shutil.copytree(tiny["bert"], tmp_path / "repository"))
    for extra in ("pytorch_model.bin", "onnx/model.onnx", "onnx/config.json", "evil.py", "README.md"):
        (folder / extra).parent.mkdir(exist_ok=True)
        (folder / extra).write_bytes(b"not wanted")
    served = Hub(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = served.answer(self.path)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the base class's name

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    constants = "huggingface_hub.constants"
    address = f"http://127.0.0.1:{server.server_port}"
    # what HF_ENDPOINT and HF_HOME would have set, had huggingface_hub been imported now
    monkeypatch.setattr(f"{constants}.ENDPOINT", address)
    monkeypatch.setattr(
        f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(f"{constants}.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "")
    yield served
    served.closing.set()
    server.shutdown()
    thread.join()
    server.server_close()


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_a_hub_id_is_fetched_and_pinned(hub: Hub) -> None:
    options = ScorerOptions(model=NAME)
    card = check_model(options)
    assert (card.model, card.revision, card.family) == (NAME, COMMIT, "bert")
    assert card.fingerprint == check_model(ScorerOptions(model=str(hub.folder))).fingerprint
    assert hub.fetched() == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    hub.requests.clear()
    assert check_model(replace(options, revision=card.revision)) == card
    assert not hub.requests  # a commit in the cache needs no network


def test_the_cache_answers_when_the_hub_does_not(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    card = check_model(ScorerOptions(model=NAME))
    go_offline(monkeypatch)
    hub.requests.clear()
    assert check_model(ScorerOptions(model=NAME)) == card
    assert check_model(ScorerOptions(model=NAME, revision="main")) == card
    assert check_model(ScorerOptions(model=NAME, revision=COMMIT)) == card
    assert not hub.requests


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_without_network_the_alternatives_are_named(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, revision: str | None
) -> None:
    go_offline(monkeypatch)
    with pytest.raises(ModelError, match=r"hub could not be reached \(OfflineModeIsEnabled") as caught:
        check_model(ScorerOptions(model=NAME, revision=revision))
    for words in (repr(NAME), "neither a folder here", "--model builtin", "a local folder", "HF_HOME"):
        assert words in str(caught.value)
    assert hub.requests == []


def test_a_silent_network_is_not_waited_for(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.silent = True
    monkeypatch.setattr(hub_module, "_TIMEOUT_SECONDS", 0.2)
    with pytest.raises(ModelError, match=r"could not be reached \(ReadTimeout"):
        check_model(ScorerOptions(model=NAME))
    assert len(hub.requests) == 1  # asked once


def test_names_and_revisions_that_the_hub_does_not_have(hub: Hub) -> None:
    with pytest.raises(ModelError, match=r"no folder 'no/such' here, and the hub has no model of that name that"):
        check_model(ScorerOptions(model="no/such"))
    with pytest.raises(ModelError, match=r"no model of that name at revision 'v9' .*RevisionNotFound"):
        check_model(ScorerOptions(model=NAME, revision="v9"))
    assert hub.fetched() == set()


def test_weights_of_a_model_that_cannot_be_used_are_not_fetched(hub: Hub) -> None:
    config = hub.folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "architectures": ["LlamaForCausalLM"]}))
    with pytest.raises(ModelError, match="is a language model that writes text"):
        check_model(ScorerOptions(model=NAME))
    assert "config.json" in hub.fetched()
    assert "model.safetensors" not in hub.fetched()


def test_half_a_download_is_finished_later(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_module._download(NAME, COMMIT, hub_module.SMALL_FILES)
    with monkeypatch.context() as offline:
        go_offline(offline)
        with pytest.raises(ModelError, match="could not be reached"):
            check_model(ScorerOptions(model=NAME, revision=COMMIT))
    assert hub.fetched() == {"config.json", "tokenizer.json", "tokenizer_config.json"}
    assert check_model(ScorerOptions(model=NAME, revision=COMMIT)).revision == COMMIT
