"""Flags, environment and file: every setting can come from each, and which of them wins."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic_settings import CliPositionalArg

from rankmill.cli.main import COMMANDS
from rankmill.errors import UsageError
from rankmill.settings.load import CommandSettings, load_settings
from rankmill.settings.rerank import RerankSettings
from rankmill.settings.serve import ServeSettings
from rankmill.settings.train import TrainSettings

NEEDED = ["--input", "in", "--output", "out"]


def rerank(*flags: str, file: Path | None = None) -> RerankSettings:
    config = [] if file is None else ["--config", str(file)]
    return load_settings(RerankSettings, [*NEEDED, *config, *flags], "rankmill rerank")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "job.yaml"


VALUES: dict[str, tuple[Sequence[str], dict[str, str], str, dict[str, Any]]] = {
    "a number": (["--top-k", "3"], {"TOP_K": "3"}, "top-k: 3", {"top_k": 3}),
    "a switch": (["--json"], {"JSON": "1"}, "json: true", {"as_json": True}),
    "a list": (["--keep", "lang,url"], {"KEEP": "lang,url"}, "keep: [lang, url]", {"keep": ("lang", "url")}),
    "a list of one": (["--keep", "lang"], {"KEEP": "lang"}, "keep: lang", {"keep": ("lang",)}),
    "a range": (["--workers", "1,8"], {"WORKERS": "1,8"}, "workers: 1,8", {"workers": (1, 8)}),
    "one worker": (["--workers", "2"], {"WORKERS": "2"}, "workers: 2", {"workers": (2, 2)}),
    "a share": (["--max-rejected", "1%"], {"MAX_REJECTED": "1%"}, "max-rejected: 1%", {"max_rejected": "1%"}),
    "a number or a word": (["--batch-tokens", "auto"], {"BATCH_TOKENS": "auto"}, "batch-tokens: auto", {}),
}


@pytest.mark.parametrize("case", VALUES)
def test_flags_environment_and_file_say_the_same(case: str, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags, variables, text, expected = VALUES[case]
    from_flags = rerank(*flags)
    assert {name: getattr(from_flags, name) for name in expected} == expected
    config.write_text(text)
    assert rerank(file=config) == from_flags
    for name, value in variables.items():
        monkeypatch.setenv(f"RANKMILL_{name}", value)
    assert rerank() == from_flags


@pytest.mark.parametrize(
    "text",
    [
        "columns: {query-id: qid, text: body}",
        "columns.query-id: qid\ncolumns: {text: body}",
        "columns.query_id: qid\ncolumns.text: body",
    ],
)
def test_columns_in_a_file(text: str, config: Path) -> None:
    config.write_text(text)
    columns = rerank(file=config).columns
    assert (columns.query_id, columns.text, columns.doc_id) == ("qid", "body", "doc_id")
    assert rerank("--columns.text", "abstract", file=config).columns == columns.model_copy(update={"text": "abstract"})


def test_dashes_and_underscores_are_the_same_in_a_list_too(config: Path) -> None:
    config.write_text("models:\n  - {model: a, cache-bytes: 5}\n  - {model: b, cache_bytes: 6}\n")
    settings = load_settings(ServeSettings, ["--config", str(config)], "rankmill serve")
    assert [(each.model, each.cache_bytes) for each in settings.models] == [("a", 5), ("b", 6)]


def test_the_environment_wins_over_the_file_and_flags_over_both(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.write_text("top-k: 1\ncolumns: {text: a, query: a, title: a}")
    monkeypatch.setenv("RANKMILL_TOP_K", "2")
    monkeypatch.setenv("RANKMILL_COLUMNS__TEXT", "b")
    monkeypatch.setenv("RANKMILL_COLUMNS__QUERY", "b")
    found = rerank("--columns.query", "c", file=config)
    assert found.top_k == 2
    assert (found.columns.title, found.columns.text, found.columns.query) == ("a", "b", "c")
    assert rerank("--top-k", "3", file=config).top_k == 3


def test_only_our_own_variables_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JSON", "1")
    monkeypatch.setenv("KEEP", "lang")
    monkeypatch.setenv("RANKMILL_STEPS", "3")  # another command's
    monkeypatch.setenv("RANKMILL_TOP_K", "")  # as good as not set
    assert (rerank().as_json, rerank().keep, rerank().top_k) == (False, (), None)


def test_what_kubernetes_says_of_a_service_of_this_name_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKMILL_PORT", "tcp://10.0.0.1:8000")
    monkeypatch.setenv("RANKMILL_SERVICE_HOST", "10.0.0.1")
    assert load_settings(ServeSettings, [], "rankmill serve").port == ServeSettings().port


def test_lists_of_paths_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKMILL_INPUT", "a.parquet,b.parquet")
    found = load_settings(TrainSettings, ["--output", "out", "--body", "body"], "rankmill train")
    assert found.input == [Path("a.parquet"), Path("b.parquet")]


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_a_variable_of_every_command_that_has_the_flag(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, name = COMMANDS[command].settings.partition(":")
    settings_class: type[CommandSettings] = getattr(importlib.import_module(module), name)
    if "as_json" not in settings_class.model_fields:
        pytest.skip("has no --json")
    positional = get_args(CliPositionalArg[str])[1]
    required = [
        ["x"] if positional in field.metadata else [f"--{name.replace('_', '-')}", "x"]
        for name, field in settings_class.model_fields.items()
        if field.is_required()
    ]
    flags = [word for words in required for word in words]
    assert load_settings(settings_class, flags, command).as_json is False  # type: ignore[attr-defined]
    monkeypatch.setenv("RANKMILL_JSON", "true")
    assert load_settings(settings_class, flags, command).as_json is True  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("columns: {txt: body}", "--columns.txt is not a setting"),
        ("columns.txt: body", "--columns.txt is not a setting"),
        ("as-json: true", "--as-json is not a setting"),
        ("top-k: many", "--top-k many"),
        ("- top-k", "must hold `flag: value` lines"),
    ],
)
def test_mistakes_in_a_file_are_named(text: str, said: str, config: Path) -> None:
    config.write_text(text)
    with pytest.raises(UsageError, match=said):
        rerank(file=config)
