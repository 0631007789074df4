"""Inputs and outputs that cannot be meant are refused at the start, and nothing is written."""

from pathlib import Path

import pytest

from rankmill.batch.places import refuse_places
from rankmill.cli.main import main
from rankmill.errors import UsageError
from rankmill.settings.plan import PlanSettings
from rankmill.settings.rerank import RerankSettings


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a folder `data`, which holds a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "a.parquet").touch()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    return tmp_path


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("data", "data/out"),
        ("data", "link/deep/out"),
        ("data/", "./data"),
        ("data", "."),
        ("data/a.parquet", "data"),
        ("data/*.parquet", "data"),
        ("data/**", "data/out"),
        ("*/*/part-*.parquet", "data/out"),
        ("s3://bucket", "s3://bucket/out"),
        ("s3://bucket/data", "s3a://bucket/data/out/"),
        ("s3://bucket/**/*.parquet", "s3://bucket/data/out"),
        ("s3://bucket/data/a.parquet", "s3://bucket/data"),
    ],
)
def test_neither_lies_in_the_other(source: str, output: str, here: Path) -> None:
    with pytest.raises(UsageError) as refused:
        refuse_places(RerankSettings(input=source, output=output))
    assert source in str(refused.value)
    assert output in str(refused.value)
    with pytest.raises(UsageError, match="--corpus"):
        refuse_places(
            RerankSettings(input="/elsewhere/run.trec", queries="/elsewhere/queries", corpus=source, output=output)
        )
    assert sorted(path.name for path in here.iterdir()) == ["data", "link"]


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("data", "out"),
        ("data", "data-out"),
        ("data", "data/_out"),  # whose files are passed over
        ("data/*.parquet", "data/out"),
        ("data/a.parquet", "data/out"),
        ("s3://bucket/data", "s3://bucket/data-out"),
        ("s3://bucket/data", "s3://other/data/out"),
        ("s3://bucket/data/*.parquet", "s3://bucket/data/out"),
        ("s3://bucket/data", "data"),
    ],
)
@pytest.mark.usefixtures("here")
def test_side_by_side_they_may_be(source: str, output: str) -> None:
    refuse_places(RerankSettings(input=source, output=output))


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("", "is empty"),
        ("s3:/bucket/x", "would be a local folder called s3:"),
        ("s3://", "names no bucket"),
        ("gs:///x", "names no bucket"),
    ],
)
def test_a_place_that_is_none(uri: str, why: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags in (["--input", uri, "--output", "out"], ["--input", "data", "--output", uri]):
        assert main(["rerank", *flags]) == 2
        assert why in capsys.readouterr().err
    assert main(["plan", "--input", uri]) == 2
    assert main(["verify", uri]) == 2
    assert why in capsys.readouterr().err
    assert sorted(path.name for path in here.iterdir()) == ["data", "link"]


@pytest.mark.parametrize("output", ["data/a.parquet", "link/a.parquet/out"])
def test_an_output_that_is_a_file(output: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rerank", "--input", "in", "--output", output]) == 2
    assert f"--output {output}: {here}/data/a.parquet is a file; give a folder." in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_a_plan_needs_no_output() -> None:
    refuse_places(PlanSettings(input="data"))
