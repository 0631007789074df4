"""Long documents in chunks, through the batch job: the same logits as the scorer's, and where the best chunk lies."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from rankmill import load
from rankmill.batch.freight import EncodedShard
from rankmill.batch.stages import encode_shard, score_shard
from rankmill.errors import NonFiniteScoreError, OutputConflictError, PairTooLargeError, UsageError
from rankmill.scoring.load import load_encoder, load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.types import EncodedPairs
from tests.batch.conftest import Row, nested, write_parquet
from tests.batch.jobs import read_rankings, run_job

CHUNKED: dict[str, Any] = {"max_length": 48, "long_documents": "chunk"}


def document(row: Row) -> str:
    return f"{row['title']} {row['text']}" if row["title"] else row["text"]


def test_the_output_says_which_chunk_was_best(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", [*rows, {**rows[0], "doc_id": "tiny", "title": "", "text": "x"}])
    run_job(source, tmp_path / "out", model, **CHUNKED)
    table = pq.read_table(tmp_path / "out")
    assert table.schema.field("best_chunk_start").type == table.schema.field("best_chunk_end").type == pa.int32()
    found = {(row["query_id"], row["doc_id"]): row for row in read_rankings(tmp_path / "out")}
    reranker = load(str(model), **CHUNKED)
    several = 0
    for row in rows[:40]:
        here = found[row["query_id"], row["doc_id"]]
        there = reranker.rank(row["query"], [document(row)])[0]
        assert here["logit"] == pytest.approx(there.logit, abs=1e-4)
        assert (here["best_chunk_start"], here["best_chunk_end"]) == (there.best_start, there.best_end)
        assert here["truncated"] == there.truncated
        several += there.best_start is not None
    assert several > 20
    assert found["q0", "tiny"]["best_chunk_start"] is None


def test_without_chunks_there_are_no_such_columns(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", rows[:20])
    run_job(source, tmp_path / "out", model, max_length=48)
    assert "best_chunk_start" not in pq.read_table(tmp_path / "out").column_names
    with pytest.raises(OutputConflictError, match="model: other weights, tokenizer, precision or truncation"):
        run_job(source, tmp_path / "out", model, **CHUNKED)


def test_nested_output_has_them_per_candidate(tmp_path: Path, model: Path, rows: list[Row]) -> None:
    source = write_parquet(tmp_path / "in.parquet", nested(rows[:30]))
    run_job(source, tmp_path / "out", model, shape="nested", **CHUNKED)
    candidates = [one for row in read_rankings(tmp_path / "out") for one in row["candidates"]]
    assert len(candidates) == 30
    assert any(one["best_chunk_end"] for one in candidates)


def test_the_names_are_taken(tmp_path: Path, model: Path) -> None:
    with pytest.raises(UsageError, match="--keep best_chunk_start"):
        run_job(tmp_path / "in.parquet", tmp_path / "out", model, keep=("best_chunk_start",))


def shard_of(texts: list[str], model: Path) -> EncodedShard:
    names = pa.array([f"d{n}" for n in range(len(texts))])
    nothing = pa.nulls(len(texts), pa.string())
    table = pa.table({"doc_id": names, "query": pa.array(["fox"] * len(texts)), "document": pa.array(texts)})
    table = table.append_column("reason", nothing).append_column("detail", nothing)
    return encode_shard(0, table, load_encoder(ScorerOptions(model=str(model), **CHUNKED)))


@pytest.mark.parametrize("texts", [[], ["x"], ["word " * 100, "", "fox " * 300]], ids=["none", "short", "long"])
def test_chunks_travel_unchanged(model: Path, texts: list[str]) -> None:
    shard = shard_of(texts, model)
    again = EncodedShard.from_row(shard.to_row()).encoded_pairs()
    expected = load_encoder(ScorerOptions(model=str(model), **CHUNKED)).encode(["fox"] * len(texts), texts)
    assert again.chunks is not None
    assert expected.chunks is not None
    for name in ("counts", "lengths", "spans"):
        np.testing.assert_array_equal(getattr(again.chunks, name), getattr(expected.chunks, name))
    np.testing.assert_array_equal(again.token_ids, expected.token_ids)
    np.testing.assert_array_equal(again.rows().offsets, expected.rows().offsets)


class Partly:
    """A loaded model that gives NaN for some rows and finds no memory for others, by their length."""

    listwise = False

    def __init__(self, model: Path, broken: int, too_large: int) -> None:
        self._scorer = load_scorer(ScorerOptions(model=str(model), precision="float32", **CHUNKED))
        self.fingerprint, self.activation, self.encode = "partly", "identity", self._scorer.encode
        self._bad = {broken: NonFiniteScoreError, too_large: PairTooLargeError}

    def logits(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        for length, error in self._bad.items():
            rows = np.flatnonzero(pairs.lengths == length).tolist()
            if rows:
                raise error("No.", rows)
        return self._scorer.logits(pairs)


def test_a_bad_chunk_rejects_its_pair_alone(model: Path) -> None:
    shard = shard_of([". " * 100, ". " * 50, "x", ". " * 5, ""], model)
    pairs = shard.encoded_pairs()
    assert pairs.chunks is not None
    last = int(pairs.chunks.lengths[pairs.chunks.counts[0] - 1])  # of the first document
    alone = int(pairs.chunks.lengths[-2])  # the one of ". " * 5
    scored = score_shard(shard, Partly(model, last, alone))
    assert scored.pairs.column("doc_id").to_pylist() == ["d1", "d2", "d4"]
    rejected = dict(zip(*scored.rejected.select(["doc_id", "reason"]).to_pydict().values(), strict=True))
    assert rejected == {"d0": "non_finite_score", "d3": "out_of_memory"}
    whole = score_shard(shard, load_scorer(ScorerOptions(model=str(model), precision="float32", **CHUNKED))).pairs
    for column in ("logit", "best_chunk_start", "best_chunk_end"):
        expected = [whole.column(column)[n].as_py() for n in (1, 2, 4)]
        assert scored.pairs.column(column).to_pylist() == pytest.approx(expected, abs=1e-5)
