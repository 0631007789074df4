"""The command line itself: commands, help, mistakes, exit codes, progress."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rankmill import __version__
from rankmill.batch.progress import LOG_SECONDS, Work, line, pace, watching
from rankmill.batch.receipts import Totals
from rankmill.cli.main import COMMANDS, main
from tests.tiny_models import save_tiny_model


def test_without_a_command_the_commands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)
    assert main(["--help"]) == 0
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.endswith(f"rankmill {__version__}\n")


def test_a_misspelled_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rernak"]) == 2
    assert "rernak is not a command. Did you mean rerank?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "right"),
    [("TOPK", "TOP_K"), ("COLUMNS_QUERY_ID", "COLUMNS__QUERY_ID"), ("SHARD_PAIR", "SHARD_PAIRS"), ("STEP", "STEPS")],
)
def test_a_misspelled_variable_is_named(
    wrong: str, right: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever command it is of."""
    monkeypatch.setenv(f"RANKMILL_{wrong}", "3")
    assert main(["verify", "nowhere"]) == 2
    said = f"rankmill verify: RANKMILL_{wrong} is not a setting of any command. Did you mean RANKMILL_{right}?\n"
    assert capsys.readouterr().err == said


def test_variables_of_other_commands_and_of_others_are_let_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kubernetes makes variables of services; the last ones we read ourselves, or the README has them."""
    for name in ("STEPS", "SERVICE_HOST", "SERVICE_PORT_HTTP", "API_KEYS", "API_KEY", "SCORER_TOKEN", "CACHE"):
        monkeypatch.setenv(f"RANKMILL_{name}", "3")
    assert main(["verify", "nowhere"]) == 2
    assert capsys.readouterr().err == f"rankmill verify: There is no folder {Path.cwd() / 'nowhere'}.\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_its_flags(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: rankmill {command}" in shown
    assert "--as-json" not in shown, "a flag has one name"


@pytest.mark.parametrize("script", ["rerank", "evaluate", "bench", "train", "measure", "training_lists"])
def test_scripts_take_the_flags_of_their_command(script: str) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, f"jobs/{script}.py", "--no-such-flag"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--no-such-flag is not a flag" in done.stderr
    assert "Traceback" not in done.stderr


WORK = Work(shards=10, queries=100, pairs=1000)


def test_pace_counts_what_this_run_did() -> None:
    before = Totals(shards=4, queries=40, pairs_in=400, tokens=4000)
    now = Totals(shards=6, queries=60, pairs_in=600, tokens=7000, rejected=2)
    speed = pace(WORK, before, now, seconds=10)
    assert (speed.pairs_per_second, speed.tokens_per_second, speed.seconds_left) == (20, 300, 20)
    assert pace(WORK, before, before, seconds=10).seconds_left is None
    assert line(WORK, now, speed) == (
        "6/10 shards  60/100 queries  600/1,000 pairs  20 pairs/s  300 tokens/s  0:00:20 left  2 rejected"
    )


def test_in_a_log_there_is_a_line_now_and_then_even_when_no_shard_is_finished(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LOG_SECONDS == 10
    monkeypatch.setattr("rankmill.batch.progress.LOG_SECONDS", 0.05)

    def wait_for(count: int) -> None:
        deadline = time.monotonic() + 20
        while len(caplog.messages) < count and time.monotonic() < deadline:
            time.sleep(0.01)

    with caplog.at_level("INFO", "rankmill"), watching(WORK, Totals(), quiet=False) as report:
        wait_for(2)
        assert {message.split()[0] for message in caplog.messages} == {"0/10"}
        report(Totals(shards=3, queries=30, pairs_in=300, tokens=1))
        wait_for(len(caplog.messages) + 2)
        report(Totals(shards=10, queries=100, pairs_in=1000, tokens=3))
    shown = [message.split()[0] for message in caplog.messages]
    assert "3/10" in shown
    assert shown[-1] == "10/10", "the last state is shown, however short the job"
    assert len(shown) < 100


@pytest.mark.slow
def test_bench_measures_both_sides(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", "bert")
    flags = ["--model", str(model), "--pairs", "300", "--rounds", "1", "--grow", "2", "--no-latency", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "rankmill", "bench", *flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    bare, job, pairs = found["bare"], found["job"], found["workload"]["pairs"]
    assert pairs >= 300
    assert found["grown"]["pairs"] == 2 * pairs
    assert job["to_bare"] == pytest.approx(job["pairs_per_second"] / bare["pairs_per_second"])
    assert 0 < job["driver_peak_bytes"] < 2**33
