"""Lines of --queries and --corpus that cannot be read: whoever misses a text is told where it may have been."""

import json
from pathlib import Path

import pytest

from rankmill.batch.join_tables import open_texts
from tests.batch.conftest import Row
from tests.batch.jobs import read_rejected, run_job, settings_for
from tests.batch.join_inputs import bad_tables, beir, shared_candidates, texts_of

SCORER = "python:tests.batch.counting_scorer:score"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"_id": "d12-0", "text": "' + "x" * 200_000 + '"}', "the line has 200,029 bytes, and 100,000 are allowed"),
        ('{"_id": "d12-0", "text":', "the line is not a JSON object"),
    ],
    ids=["too long", "cut"],
)
@pytest.mark.parametrize("side", ["corpus", "queries"])
def test_a_line_that_may_have_held_the_text_is_named(
    side: str, line: str, why: str, tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankmill.tables.lines.LINE_BYTES", 100_000)  # or the tests would write 64 MiB a line
    monkeypatch.setattr("rankmill.tables.lines._TEXTS", 0)
    shared = shared_candidates(rows)
    tables = beir(tmp_path, shared)
    column, lost = ("doc_id", "d12-0") if side == "corpus" else ("query_id", "q12")
    table = tmp_path / f"{side}.jsonl"
    queries, documents = texts_of(shared)
    others = [row for row in (documents if side == "corpus" else queries) if row["_id"] != lost]
    table.write_text("".join(json.dumps(row) + "\n" for row in others[:4]) + "\n" + line + "\n")
    with table.open("a") as out:
        out.writelines(json.dumps(row) + "\n" for row in others[4:])
    run_job(output=tmp_path / "out", model=SCORER, max_rejected="100%", **{**tables, side: str(table)})
    rejected = read_rejected(tmp_path / "out").to_pylist()
    assert {row[column] for row in rejected} == {lost}
    assert {row["reason"] for row in rejected} == {f"unknown_{'document' if side == 'corpus' else 'query'}"}
    (detail,) = {row["detail"] for row in rejected}
    assert f" in what can be read of it: {table}, line 5 (without blank ones): {why}" in detail


def test_of_many_lines_that_cannot_be_read_the_first_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    tables = bad_tables(tmp_path)
    with Path(tables["corpus"]).open("a") as corpus:
        corpus.write("not JSON\n" * 5000)
    run_job(output=tmp_path / "out", model=SCORER, max_rejected="100%", **tables)
    details = {row["doc_id"]: row["detail"] for row in read_rejected(tmp_path / "out").to_pylist()}
    assert details["gone"].endswith("line 7 (without blank ones): the line is not a JSON object (and 20 more)")
    corpus_table = open_texts(settings_for(tables.pop("source"), tmp_path / "new", SCORER, **tables)).corpus
    read = [row for table in corpus_table.read(0, 0, 9000) for row in table.to_pylist()]
    said = [row["detail"] for row in read if row["key"] is None]
    assert said[-1] == f"{tables['corpus']}: 4,980 more like these"
    assert len(said) == 21
