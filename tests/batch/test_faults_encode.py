"""Rows that kill the process that tokenises them (F15), by what such processes leave behind."""

import contextlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from rankmill.batch.guarded import GuardedEncoding
from rankmill.batch.scratch import Scratch
from rankmill.batch.stage_process import StageDiedError
from rankmill.batch.stages import encode_here
from rankmill.scoring.options import ScorerOptions

_RETRIEVED = ["lazy dog", "boiling point of water", "a list of numbers", "cross-encoders", "relevance", "mountains"]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scratch:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return Scratch("run")


@pytest.fixture
def shard() -> pa.Table:
    """Six rows in canonical form, of which the last cannot be scored."""
    size = len(_RETRIEVED)
    return pa.table(
        {
            "source": pa.array([0] * size, pa.int32()),
            "row": pa.array(range(size), pa.int64()),
            "query_id": ["q"] * size,
            "query": ["which animal?"] * size,
            "doc_id": [f"d{number}" for number in range(size)],
            "document": _RETRIEVED,
            "reason": pa.array([None] * (size - 1) + ["null_text"], pa.string()),
            "detail": pa.array([None] * (size - 1) + ["the document text is null"], pa.string()),
        }
    )


def killed(scratch: Scratch, piece: str, times: int) -> None:
    """Leave what processes leave that die at work."""
    for _ in range(times):
        with contextlib.suppress(StageDiedError), scratch.attempt(piece):
            raise StageDiedError


@pytest.mark.parametrize("deaths", [0, 1, 2])
def test_tokens_are_the_same_wherever_they_are_made(
    deaths: int, shard: pa.Table, scratch: Scratch, model: Path
) -> None:
    killed(scratch, "encode-7-0-6", deaths)
    options = ScorerOptions(model=str(model))
    if deaths == 2:
        killed(scratch, "encode-7-0-3", 1)  # halves, so that there is something to join
    found, expected = GuardedEncoding(scratch)(7, shard, options), encode_here(7, shard, options)
    assert found.index == 7
    assert found.pairs.equals(expected.pairs)
    assert found.rejected.equals(expected.rejected)
    assert found.token_ids.tolist() == expected.token_ids.tolist()


def test_the_row_is_rejected_and_no_other(shard: pa.Table, scratch: Scratch, model: Path) -> None:
    """F15: while it is tokenised."""
    for piece, times in (("0-6", 2), ("0-3", 1), ("1-3", 1), ("2-3", 2)):
        killed(scratch, f"encode-0-{piece}", times)
    found = GuardedEncoding(scratch)(0, shard, ScorerOptions(model=str(model)))
    assert found.pairs.column("doc_id").to_pylist() == ["d0", "d1", "d3", "d4"]
    assert found.pairs.column("length").to_pylist() == [
        len(found.encoded_pairs().token_ids[start:stop])
        for start, stop in zip(found.encoded_pairs().offsets[:-1], found.encoded_pairs().offsets[1:], strict=True)
    ]
    rejected = {row["doc_id"]: row["reason"] for row in found.rejected.to_pylist()}
    assert rejected == {"d2": "worker_crash", "d5": "null_text"}


_HANGING = """
import ctypes, pickle, sys
from rankmill.batch import guarded
guarded.encode_here = lambda *_: ctypes.PyDLL(None).sleep(600)  # a tokenizer that keeps the interpreter's lock
encode, *arguments = pickle.load(sys.stdin.buffer)
encode(*arguments)
"""


def test_a_process_that_hangs_over_a_shard_ends_and_leaves_its_mark(
    shard: pa.Table, scratch: Scratch, model: Path, tmp_path: Path
) -> None:
    work = pickle.dumps((GuardedEncoding(scratch, limit=0.5), 7, shard, ScorerOptions(model=str(model))))
    environment = os.environ | {
        "TMPDIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(
        [sys.executable, "-c", _HANGING], input=work, env=environment, stderr=subprocess.PIPE, timeout=120, check=False
    )
    assert done.returncode == 1
    assert b"Timeout (0:00:00.500000)!" in done.stderr
    assert b"guarded.py" in done.stderr, "where it hung"
    assert scratch.deaths("encode-7-0-6") == 1
