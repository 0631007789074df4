"""The reader that watches the fault tests does see what it should not."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.batch import counting_scorer
from tests.batch.conftest import Row, write_parquet
from tests.batch.jobs import run_job
from tests.batch.reader import Reader, polled, reader_of

SCORER = "python:tests.batch.counting_scorer:score"
WATCHED_SCORER = "python:tests.batch.test_reader:watched_score"

watching: list[Reader] = []


def watched_score(queries: Sequence[str], texts: Sequence[str]) -> list[float]:
    """The scores of `counting_scorer`; before each batch those who are `watching` look once."""
    for reader in watching:
        reader.look()
    return counting_scorer.score(queries, texts)


@pytest.fixture
def finished(tmp_path: Path, rows: list[Row]) -> Path:
    run_job(write_parquet(tmp_path / "in.parquet", rows), tmp_path / "out", SCORER)
    return tmp_path / "out"


def overwrite(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return damage


def hide(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def looked(reader: Reader) -> list[str]:
    reader.look()
    return reader.violations


def test_a_job_from_its_first_byte_to_its_last_is_without_fault(tmp_path: Path, rows: list[Row]) -> None:
    """F20: looked at while it runs, after each part and when it is complete."""
    source, reader = write_parquet(tmp_path / "in.parquet", rows), reader_of(str(tmp_path / "out"))
    watching.append(reader)
    try:
        run_job(source, tmp_path / "out", WATCHED_SCORER)
    finally:
        watching.clear()
    parts = len(list((tmp_path / "out").glob("part-*.parquet")))
    assert reader.looks >= parts > 1
    assert looked(reader) == []


@pytest.mark.parametrize(
    ("damage", "seen"),
    [
        (hide("_rankmill/manifest.json"), "_SUCCESS without a manifest"),
        (hide("part-000003.parquet"), "_SUCCESS without part-000003.parquet"),
        (hide("_rankmill/commits/000002.json"), "_SUCCESS without _rankmill/commits/000002.json"),
        (overwrite("part-000003.parquet", lambda body: body[: len(body) // 2]), "part-000003.parquet is not whole"),
    ],
)
def test_half_an_output_is_seen(finished: Path, damage: Callable[[Path], None], seen: str) -> None:
    """F20: what a writer would leave that says that it is done before it is."""
    damage(finished)
    assert any(seen in violation for violation in looked(reader_of(str(finished))))


def test_changes_are_seen(finished: Path) -> None:
    """F20: nothing that was written is written again, or taken away."""
    reader = reader_of(str(finished))
    assert looked(reader) == []
    other = (finished / "part-000001.parquet").read_bytes()
    overwrite("part-000003.parquet", lambda _: other)(finished)
    hide("part-000004.parquet")(finished)
    assert set(looked(reader)) == {"part-000004.parquet was there and is gone", "part-000003.parquet has changed"}


def test_a_violation_fails_the_test_that_is_watched(finished: Path) -> None:
    hide("_rankmill/manifest.json")(finished)
    with pytest.raises(AssertionError, match="without a manifest"), polled(finished):
        pass
