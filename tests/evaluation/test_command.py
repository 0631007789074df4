"""The command as people run it: `python jobs/evaluate.py` with real files."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def evaluate(*flags: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "lib"), "COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, ROOT / "jobs" / "evaluate.py", *flags],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    qrels, run, baseline = tmp_path / "qrels.tsv", tmp_path / "run.trec", tmp_path / "baseline.trec"
    qrels.write_text("query-id\tcorpus-id\tscore\nq1\ta\t1\nq2\tb\t1\n")
    run.write_text("q1 Q0 a 1 2 r\nq1 Q0 b 2 1 r\nq2 Q0 b 1 2 r\n")
    baseline.write_text("q1 Q0 b 1 2 b\nq1 Q0 a 2 1 b\nq2 Q0 b 1 2 b\n")
    return {"qrels": str(qrels), "run": str(run), "baseline": str(baseline), "report": str(tmp_path / "report.html")}


def test_compares_two_runs(files: dict[str, str]) -> None:
    flags = [part for name, path in files.items() for part in (f"--{name}", path)]
    done = evaluate(*flags, "--measures", "RR@10 P@1", "--json")
    assert done.returncode == 0, done.stderr
    assert "RR@10 0.7500 1.0000 +0.2500" in " ".join(done.stdout.split())
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["differences"]["RR@10"]["better"] == 1
    assert Path(files["report"]).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert files["report"] in done.stderr


def test_quiet_prints_the_summary_alone(files: dict[str, str]) -> None:
    done = evaluate("--qrels", files["qrels"], "--run", files["run"], "--quiet", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["measures"]["RR@10"] == 1.0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--measures": "nDCGG@10"}, "Did you mean nDCG@10"),
        ({"--run": "nowhere.trec"}, "nowhere.trec does not exist"),
        ({"--rum": "x"}, "--rum"),
    ],
)
def test_mistakes_end_with_two_and_a_sentence(files: dict[str, str], change: dict[str, str], words: str) -> None:
    flags = {"--qrels": files["qrels"], "--run": files["run"], **change}
    done = evaluate(*(part for pair in flags.items() for part in pair))
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
