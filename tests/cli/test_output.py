"""`rankmill verify`, `status` and `gc`, as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.batch import job as batch
from rankmill.batch.executor import InProcess
from rankmill.cli.main import main
from rankmill.settings.rerank import RerankSettings
from rankmill.storage.lease import held
from rankmill.storage.store import Store
from tests.tiny_models import save_tiny_model


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A finished job of two shards."""
    rows = [{"query_id": n // 2, "query": "a red fox", "doc_id": n % 2, "text": f"fox {n}"} for n in range(8)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    settings = RerankSettings(
        input=str(tmp_path / "in.parquet"),
        output=str(tmp_path / "out"),
        model=str(save_tiny_model(tmp_path / "model", "bert")),
        shard_pairs=4,
        quiet=True,
    )
    batch.run(batch.prepare(settings), InProcess())
    return tmp_path / "out"


def test_verify_says_whether_all_is_well(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(output), "--deep"]) == 0
    shown = capsys.readouterr().out
    assert "is complete" in shown
    assert "8 pairs read = 8 ranked + 0 rejected + 0 cut by --top-k" in shown
    (output / "part-000001.parquet").unlink()
    assert main(["verify", str(output)]) == 1
    assert "part-000001.parquet: expected" in capsys.readouterr().out
    assert main(["verify", "--json", str(output)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["whole"], found["problems"][0]["found"]) == (False, "no such file")


def test_status_says_how_far_it_is(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(output), "--watch", "1"]) == 0
    assert "2/2 shards, 8/8 pairs (100.0%), 0 rejected" in capsys.readouterr().out
    assert main(["status", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["complete"] is True


def test_gc_takes_leftovers_away_when_it_may(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (output / "_rankmill" / "probe").mkdir(exist_ok=True)
    (output / "_rankmill" / "probe" / "0123").write_bytes(b"left")
    assert main(["gc", str(output), "--dry-run"]) == 0
    assert "1 file of 4 bytes would be deleted" in capsys.readouterr().out
    assert (output / "_rankmill" / "probe" / "0123").exists()
    assert main(["gc", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][-1] == "_rankmill/probe/0123"
    assert main(["verify", str(output), "--deep"]) == 0


def test_gc_is_refused_while_a_run_is_alive(output: Path) -> None:
    (output / "_rankmill" / "staging").mkdir(exist_ok=True)
    (output / "_rankmill" / "staging" / "0123").write_bytes(b"left")
    with held(Store(str(output)), seconds=1):
        command = [sys.executable, "-m", "rankmill", "gc", str(output), "--storage.lease-seconds", "1"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert "is held by a live run" in done.stderr
    assert (output / "_rankmill" / "staging" / "0123").exists()


@pytest.mark.parametrize("command", ["verify", "status", "gc"])
def test_what_is_no_output_is_refused(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, str(tmp_path)]) == 2
    assert "holds no job" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main([command, str(tmp_path / "nowhere")]) == 2
    assert main([command]) == 2
