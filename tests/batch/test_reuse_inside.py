"""A pair whose texts come again in another shard of the same job is scored once, and nothing shows it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rankmill.batch.memory import ENTRY, Answer, Memory
from rankmill.batch.recorded import read
from rankmill.batch.verify import verify
from rankmill.storage.store import Store
from tests.batch.conftest import Row, write_parquet
from tests.batch.counting_scorer import asked
from tests.batch.jobs import read_rankings, read_rejected, run_job, run_on_ray

COUNTING = "python:tests.batch.counting_scorer:score"


@pytest.fixture(autouse=True)
def _nothing_asked() -> Iterator[None]:
    asked.clear()
    yield
    asked.clear()


@pytest.fixture
def repeated(rows: list[Row]) -> list[Row]:
    """All rows; then the queries again under other ids: their documents in another order, one of them twice, one new.

    No query has rows in two shards (of 20 pairs), so that all that comes again lies in others than before.
    """
    again = [{**row, "query_id": f"again-{row['query_id']}", "doc_id": f"x-{row['doc_id']}"} for row in reversed(rows)]
    return [*rows, *again, {**again[-1], "doc_id": "twice"}, {**again[-1], "doc_id": "new", "text": "a new text"}]


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A memory that knows nothing, until the patch is undone."""
    nothing = np.zeros(0, np.int64)
    with monkeypatch.context() as patch:
        patch.setattr(Memory, "ask", lambda *_: Answer(nothing, np.zeros(0, ENTRY), nothing))
        yield patch


def parts(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.glob("part-*")}


def test_a_pair_in_two_shards_is_scored_once(
    tmp_path: Path, repeated: list[Row], forgetful: pytest.MonkeyPatch
) -> None:
    source = write_parquet(tmp_path / "in.parquet", repeated)
    full = run_job(source, tmp_path / "full", COUNTING, keep_scores=True)
    assert (len(asked), full.totals.repeated) == (len(repeated) - 1, 1), "in a shard they are found without a memory"
    forgetful.undo()
    asked.clear()
    summary = run_job(source, tmp_path / "out", COUNTING, keep_scores=True)
    assert len(asked) == len(set(asked)) == len(repeated) // 2
    assert (summary.totals.repeated, summary.totals.reused) == (len(repeated) - len(asked), 0)
    assert summary.totals.scored == len(repeated)
    assert parts(tmp_path / "out") == parts(tmp_path / "full")
    assert verify(read(Store(str(tmp_path / "out"))), deep=True).whole
    assert "pairs with the score of a pair of the same texts" in summary.text()
    asked.clear()
    assert run_job(source, tmp_path / "new", COUNTING, reuse=str(tmp_path / "out")).totals.reused == len(repeated)
    assert asked == [], "what was remembered was kept like the rest"


@pytest.mark.parametrize("settings", [{}, {"max_length": 48, "long_documents": "chunk"}], ids=["whole", "chunks"])
def test_everything_that_a_model_finds_out_is_remembered(
    tmp_path: Path, model: Path, repeated: list[Row], forgetful: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    source = write_parquet(tmp_path / "in.parquet", repeated)
    run_job(source, tmp_path / "full", model, **settings)
    forgetful.undo()
    summary = run_job(source, tmp_path / "out", model, **settings)
    assert summary.totals.repeated == len(repeated) // 2
    found, expected = read_rankings(tmp_path / "out"), read_rankings(tmp_path / "full")
    for name in found[0].keys() - {"score", "logit"}:
        assert [row[name] for row in found] == [row[name] for row in expected]
    assert [row["logit"] for row in found] == pytest.approx([row["logit"] for row in expected], abs=1e-5)
    assert settings == {} or any(row["best_chunk_start"] is not None for row in found)


def test_a_pair_without_a_score_is_asked_for_again_in_the_next_shard(tmp_path: Path, repeated: list[Row]) -> None:
    bad = [{**repeated[0], "query_id": f"{shard}", "doc_id": "bad", "text": "NAN"} for shard in ("first", "last")]
    source = write_parquet(tmp_path / "in.parquet", [bad[0], *repeated, bad[1]])
    run_job(source, tmp_path / "out", COUNTING, max_rejected=2)
    assert sum(text.split()[-1] == "NAN" for _, text in asked) == 2
    assert [row["reason"] for row in read_rejected(tmp_path / "out").to_pylist()] == ["non_finite_score"] * 2


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
@pytest.mark.parametrize("workers", [1, 2])
def test_on_ray_also_where_the_model_raises_for_a_row(tmp_path: Path, repeated: list[Row], workers: int) -> None:
    fatal = {**repeated[-1], "doc_id": "fatal", "text": "RAISE"}
    source = write_parquet(tmp_path / "in.parquet", [*repeated, fatal])
    scorer = "python:tests.batch.crashing_scorers:score"
    summary = run_on_ray(source, tmp_path / "out", scorer, workers=workers, cpus_per_worker=1, max_rejected=1)
    assert summary.totals.rejected == 1
    found, every = summary.totals.repeated, len(repeated) // 2
    assert found == every if workers == 1 else 0 < found <= every, "a slow machine may try a worker's patience"
    run_job(write_parquet(tmp_path / "good.parquet", repeated), tmp_path / "full", scorer)
    assert read_rankings(tmp_path / "out") == read_rankings(tmp_path / "full")
    assert verify(read(Store(str(tmp_path / "out"))), deep=True).whole
