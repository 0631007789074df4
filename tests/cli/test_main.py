"""The command line itself: commands, help, mistakes, exit codes, progress."""

import json
import subprocess
import sys
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


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_its_flags(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: rankmill {command}" in shown
    assert "--as-json" not in shown, "a flag has one name"


@pytest.mark.parametrize("script", ["rerank", "evaluate", "bench", "train"])
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


def test_in_a_log_there_is_a_line_every_ten_seconds(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 3))
    monkeypatch.setattr("rankmill.batch.progress.time.monotonic", lambda: float(next(clock)))
    with caplog.at_level("INFO", "rankmill"), watching(WORK, Totals(), quiet=False) as report:
        for shards in range(1, 11):
            report(Totals(shards=shards, queries=10 * shards, pairs_in=100 * shards, tokens=1))
    assert [message.split("/")[0] for message in caplog.messages] == ["4", "8", "10"]
    assert LOG_SECONDS == 10


@pytest.mark.slow
def test_bench_measures_both_sides(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", "bert")
    flags = ["--model", str(model), "--pairs", "300", "--rounds", "1", "--grow", "2", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "rankmill", "bench", *flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["pairs"] >= 300
    assert found["grown_pairs"] == 2 * found["pairs"]
    assert found["job_to_bare"] == pytest.approx(found["job_pairs_per_second"] / found["bare_pairs_per_second"])
    assert 0 < found["driver_peak_bytes"] < 2**33
