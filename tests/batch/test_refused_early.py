"""What `rankmill rerank` refuses before Ray is started: no cluster is where these commands would join one."""

from pathlib import Path

import pytest

from rankmill.cli.main import main
from rankmill.storage.lease import held
from rankmill.storage.store import Store
from tests.batch.conftest import Row, write_parquet

NO_CLUSTER = ["--address", "127.0.0.1:9"]


@pytest.fixture
def flags(tmp_path: Path, model: Path, rows: list[Row]) -> list[str]:
    """A job into `out` that nothing is wrong with."""
    source = write_parquet(tmp_path / "in.parquet", rows)
    return ["--input", str(source), "--output", str(tmp_path / "out"), "--model", str(model), *NO_CLUSTER]


def test_a_job_that_nothing_is_wrong_with_gets_as_far_as_ray_and_leaves_no_trace(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The control of the tests below."""
    assert main(["rerank", *flags]) == 2
    assert "127.0.0.1:9" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rerank", *flags, "--output", "/proc/no-such"]) == 7
    assert "Could not write /proc/no-such/" in capsys.readouterr().err


def test_an_output_that_a_live_run_holds(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """F9, with exit code 4."""
    with held(Store(str(tmp_path / "out")), 0.5):
        assert main(["rerank", *flags]) == 4
    assert f"{tmp_path / 'out'} is held by a live run, process " in capsys.readouterr().err


@pytest.mark.parametrize("body", [b"", b'{"settings": {', b"[]", b'{"settings": 5}'])
def test_a_damaged_job_record(
    body: bytes, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "out" / "_rankmill" / "job.json"
    record.parent.mkdir(parents=True)
    record.write_bytes(body)
    assert main(["rerank", *flags]) == 3
    assert f"{record} is damaged" in capsys.readouterr().err
    assert record.read_bytes() == body


def test_an_input_whose_file_system_cannot_be_reached(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rerank", *flags, "--input", "hdfs://nowhere/in"]) == 2
    (said,) = capsys.readouterr().err.splitlines()  # not all the places in which Java was looked for
    assert "--input hdfs://nowhere/in cannot be opened: " in said


def test_a_column_that_is_kept_twice(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rerank", *flags, "--keep", "lang,title,lang"]) == 2
    assert "--keep names lang more than once." in capsys.readouterr().err
