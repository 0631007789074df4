"""`rankmill score`: from lines to rankings, in this process, and mistakes in sentences."""

import gzip
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankmill import load
from rankmill.cli.main import main
from tests.tiny_models import CORPUS, save_tiny_model

QUERY = "how do I sort a list"
Score = Callable[..., tuple[int, list[dict[str, Any]], str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), "bert")


@pytest.fixture
def run_score(model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Score:
    """Runs the command in this process; returns exit code, rows of stdout and stderr."""

    def score(*flags: str, stdin: str | bytes = "") -> tuple[int, list[dict[str, Any]], str]:
        body = stdin if isinstance(stdin, bytes) else stdin.encode()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(body)))
        code = main(["score", "--model", str(model), *flags])
        shown = capsys.readouterr()
        return code, [json.loads(line) for line in shown.out.splitlines()], shown.err

    return score


def test_documents_of_a_query_one_per_line(run_score: Score, model: Path, tmp_path: Path) -> None:
    (tmp_path / "documents.txt").write_text("\n".join([*CORPUS[:2], "", *CORPUS[2:], '{"not": "JSON lines"}']))
    documents = [*CORPUS, '{"not": "JSON lines"}']
    code, rows, _ = run_score("--query", QUERY, "--documents", str(tmp_path / "documents.txt"), "--with-text")
    expected = load(str(model)).rank(QUERY, documents)
    assert code == 0
    assert [(row["index"], row["rank"]) for row in rows] == [(found.index, n) for n, found in enumerate(expected, 1)]
    assert [row["text"] for row in rows] == [found.document for found in expected]
    assert [row["logit"] for row in rows] == pytest.approx([found.logit for found in expected], abs=1e-5)
    assert [row["score"] for row in rows] == pytest.approx([found.score for found in expected], abs=1e-5)
    assert rows[0].keys() == {"query", "index", "rank", "score", "logit", "truncated", "text"}
    best = run_score("--query", QUERY, "--documents", "-", "--top-k", "2", stdin="\n".join(documents))[1]
    assert [row["index"] for row in best] == [found.index for found in expected[:2]]


def test_pairs_in_json_lines(run_score: Score, model: Path, tmp_path: Path) -> None:
    pairs: list[dict[str, Any]] = [
        {"query_id": 7, "query": QUERY, "doc_id": f"d{n}", "text": text} for n, text in enumerate(CORPUS)
    ]
    pairs.append({"query_id": 8, "query": QUERY, "title": "A title", "text": CORPUS[0]})
    pairs.append({"query_id": 8, "query": QUERY, "text": ""})
    body = "\n\n".join(json.dumps(pair) for pair in pairs)
    code, rows, _ = run_score(stdin=b"\xef\xbb\xbf" + body.encode())
    assert code == 0
    assert [row["query_id"] for row in rows] == [7] * len(CORPUS) + [8, 8]
    assert [row["rank"] for row in rows] == [*range(1, len(CORPUS) + 1), 1, 2]
    reranker = load(str(model))
    assert [row["doc_id"] for row in rows[:-2]] == [f"d{found.index}" for found in reranker.rank(QUERY, CORPUS)]
    logits = {row["index"]: row["logit"] for row in rows}
    titled = reranker.rank(QUERY, [f"A title {CORPUS[0]}"])[0]
    assert logits[len(CORPUS)] == pytest.approx(titled.logit, abs=1e-5)
    assert "text" not in rows[0]
    (tmp_path / "pairs.jsonl.gz").write_bytes(gzip.compress(body.encode()))
    assert run_score("--input", str(tmp_path / "pairs.jsonl.gz"))[1] == rows


def test_pairs_in_tab_separated_lines(run_score: Score) -> None:
    code, rows, err = run_score("--activation", "raw", stdin="fox\ta dog\nfox\ttext\twith a tab\r\nsort\tlist\n")
    assert code == 0
    assert [(row["query"], row["rank"]) for row in rows] == [("fox", 1), ("fox", 2), ("sort", 1)]
    assert all(row["score"] == row["logit"] for row in rows)
    assert "3 pairs in" in err
    assert run_score("--quiet", stdin="fox\ta dog\n")[2] == ""


def test_long_documents_in_chunks(run_score: Score, tmp_path: Path) -> None:
    long = " ".join(CORPUS)
    (tmp_path / "documents.jsonl").write_text(json.dumps(long) + "\n" + json.dumps({"doc_id": 1, "text": "short"}))
    flags = ["--query", "fox", "--documents", str(tmp_path / "documents.jsonl"), "--max-length", "40"]
    rows = {row["index"]: row for row in run_score(*flags, "--long-documents", "chunk")[1]}
    assert 0 <= rows[0]["best_chunk_start"] < rows[0]["best_chunk_end"] <= len(long)
    assert (rows[1]["best_chunk_start"], rows[1]["best_chunk_end"]) == (None, None)
    assert (rows[0]["truncated"], rows[1]["doc_id"]) == (False, 1)
    cut = {row["index"]: row for row in run_score(*flags)[1]}
    assert cut[0]["truncated"]
    assert "best_chunk_start" not in cut[0]


@pytest.mark.parametrize(
    ("flags", "stdin", "words"),
    [
        (["--query", "q"], "", "--query was given without --documents"),
        (["--documents", "x"], "", "--documents was given without --query"),
        (["--query", "q", "--documents", "-", "--input", "x"], "", "not both"),
        (["--input", "/no/such.jsonl"], "", "/no/such.jsonl does not exist."),
        ([], "", "standard input holds nothing to score"),
        ([], "\n \n", "standard input holds nothing to score"),
        ([], "no tab here", "Line 1 of standard input has no tab"),
        ([], '{"query": "a", "text": "b"}\n\n{"query": "a"}\n', "Line 3 of standard input: text is missing"),
        ([], '{"query": 5, "text": "b"}', "Line 1 of standard input: query is 5; it must be a text"),
        ([], '{"query": "a", "text": "b"}\n{broken', "Line 2 of standard input is not JSON"),
        ([], '{"query": "a", "text": "b"}\n"text"', "Line 2 of standard input is no JSON object"),
        ([], '{"query": "a", "text": "b", "doc_id": [1]}', "doc_id must be a text or a whole number"),
        ([], '{"query": "a", "text": "b", "query_id": true}', "query_id must be a text or a whole number"),
        (["--input-format", "jsonl"], "a\tb", "For plain text give --input-format text"),
        ([], b"q\t\xff\xfe", "standard input is not UTF-8"),
        (["--max-length", "64", "--long-documents", "chunk", "--chunk-overlap", "60"], "a\tb", "--chunk-overlap 60"),
        (["--top-k", "0"], "a\tb", "--top-k 0"),
    ],
)
def test_mistakes_are_told_in_sentences(run_score: Score, flags: list[str], stdin: str | bytes, words: str) -> None:
    code, _, err = run_score(*flags, stdin=stdin)
    assert code == 2
    assert words in err
    assert "Traceback" not in err


def test_a_terminal_gets_a_table(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "documents.txt").write_text("\n".join(CORPUS[:3]))
    flags = ["score", "--model", str(model), "--query", "[fox]", "--documents", str(tmp_path / "documents.txt")]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert main(flags) == 0
    shown = capsys.readouterr().out
    assert "[fox]" in shown
    assert all(heading in shown for heading in ("rank", "score", "logit", "document"))
    assert main([*flags, "--json"]) == 0
    assert [json.loads(line)["rank"] for line in capsys.readouterr().out.splitlines()] == [1, 2, 3]


def test_a_reader_that_leaves_is_no_error(model: Path) -> None:
    """`rankmill score | head` must not end in a traceback."""
    script = f"""
import os, sys
from rankmill.cli.main import main
reading, writing = os.pipe()
os.close(reading)
os.dup2(writing, 1)
sys.exit(main(["score", "--model", {str(model)!r}]))
"""
    lines = "".join(f"query {n}\ttext\n" for n in range(50)).encode()
    done = subprocess.run([sys.executable, "-c", script], input=lines, capture_output=True, check=False)
    assert (done.returncode, b"Traceback" in done.stderr, b"Exception" in done.stderr) == (0, False, False), done.stderr
