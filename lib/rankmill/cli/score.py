"""`rankmill score`: pairs in, rankings out, in one process."""

import io
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any, TextIO

import numpy as np
import orjson
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rankmill.errors import InputError, UsageError
from rankmill.scoring.load import load_scorer
from rankmill.scoring.options import ScorerOptions
from rankmill.scoring.overlap import Pair
from rankmill.scoring.reranker import Reranker
from rankmill.settings.score import ScoreSettings
from rankmill.tables.errors import storage_errors
from rankmill.tables.trec import open_text

_log = logging.getLogger("rankmill")
_STDIN = "-"
_TABLE_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Row:
    """A pair as it was read."""

    index: int
    """Counted from 0 over the rows of the input."""
    query: str
    text: str
    query_id: str | int | None = None
    doc_id: str | int | None = None

    @property
    def group(self) -> str | int:
        """What the rows of one ranking share."""
        return self.query if self.query_id is None else self.query_id


def run(settings: ScoreSettings) -> int:
    """Score and print; returns the exit code."""
    if settings.quiet:
        _log.setLevel(logging.ERROR)
    table = sys.stdout.isatty() and not settings.as_json
    rows = read(settings)
    first = next(rows, None)  # a missing or an unusable input is found before a model is loaded
    if first is None:
        raise InputError(f"{_name(settings.documents or settings.input or _STDIN)} holds nothing to score.")
    reranker = Reranker(load_scorer(ScorerOptions.of(settings)), settings.activation)
    started, pairs = time.perf_counter(), 0
    try:
        for ranking in rankings(reranker, chain([first], rows), with_text=settings.with_text or table):
            pairs += len(ranking)
            best = ranking[: settings.top_k]
            if table:
                Console(highlight=False).print(_table(best))
            else:
                for row in best:
                    sys.stdout.write(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY).decode() + "\n")
                sys.stdout.flush()
    except BrokenPipeError:  # whoever reads this has seen enough, such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    seconds = time.perf_counter() - started
    _log.info("%s pairs in %.1f s, %.1f pairs/s", f"{pairs:,}", seconds, pairs / seconds)
    return 0


def rankings(reranker: Reranker, rows: Iterator[Row], *, with_text: bool) -> Iterator[list[dict[str, Any]]]:
    """Yield the ranking of each query as soon as its last row is scored; rows of a query lie together.

    Texts are held for a slice or two; for a whole query only `with_text`.
    """
    waiting: deque[Row] = deque()
    read = 0

    def pairs(some: Iterable[Row]) -> Iterator[Pair]:
        nonlocal read
        for row in some:
            read += 1
            waiting.append(row)
            yield row.query, row.text

    group: list[dict[str, Any]] = []
    current: str | int | None = None
    # queries with different ids may have the same text, and are different lists
    lists = (some for _, some in groupby(rows, key=lambda row: row.group)) if reranker.scorer.listwise else [rows]
    for scored in chain.from_iterable(reranker.stream(pairs(some), before=read) for some in lists):
        for i in range(len(scored)):
            row = waiting.popleft()
            if group and row.group != current:
                yield _ranked(group)
                group = []
            current = row.group
            result: dict[str, Any] = {"query": row.query} if row.query_id is None else {"query_id": row.query_id}
            if row.doc_id is not None:
                result["doc_id"] = row.doc_id
            result |= {"index": row.index, "rank": 0}
            result |= {"score": scored.scores[i], "logit": scored.logits[i], "truncated": bool(scored.truncated[i])}
            if scored.best is not None:
                start, end = scored.span(i) or (None, None)
                result |= {"best_chunk_start": start, "best_chunk_end": end}
            if with_text:
                result["text"] = row.text
            group.append(result)
    if group:
        yield _ranked(group)


def read(settings: ScoreSettings) -> Iterator[Row]:
    """Yield the rows of the input, in order; blank lines are passed over.

    Raises:
        InputError: it cannot be read, or a line is not what it should be.
        UsageError: nothing was given, and standard input is a terminal.
    """
    name = settings.documents or settings.input or _STDIN
    if name == _STDIN and settings.input is None and settings.documents is None and sys.stdin.isatty():
        raise UsageError("Give pairs with --input FILE or through a pipe, or --query TEXT with --documents FILE.")
    with _lines(name) as handle:
        index = 0
        form = settings.input_format
        for number, line in enumerate(handle, start=1):
            if not line.strip():
                continue
            if form == "auto":
                form = "jsonl" if _is_jsonl(name, line) else "text"
            where = f"Line {number} of {_name(name)}"
            yield (_from_json if form == "jsonl" else _from_text)(line, where, index, settings.query)
            index += 1


def _from_json(line: str, where: str, index: int, query: str | None) -> Row:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{where} is not JSON: {error}. For plain text give --input-format text.") from error
    if query is not None and isinstance(row, str):
        return Row(index, query, row)
    if not isinstance(row, dict):
        raise InputError(f"{where} is no JSON object; it must be one, with {_fields(query)}.")
    texts = {"text": row.get("text")} if query is not None else {"query": row.get("query"), "text": row.get("text")}
    for field, value in texts.items():
        if not isinstance(value, str):
            said = "is missing" if field not in row else f"is {orjson.dumps(value).decode()[:40]}"
            raise InputError(f"{where}: {field} {said}; it must be a text.")
    for field in ("query_id", "doc_id"):
        if isinstance(row.get(field), bool) or not isinstance(row.get(field), str | int | None):
            raise InputError(f"{where}: {field} must be a text or a whole number.")
    title = row.get("title")
    text = f"{title} {row['text']}" if isinstance(title, str) and title else row["text"]
    return Row(index, row["query"] if query is None else query, text, row.get("query_id"), row.get("doc_id"))


def _from_text(line: str, where: str, index: int, query: str | None) -> Row:
    line = line.rstrip("\n")
    if query is not None:
        return Row(index, query, line)
    found, tab, text = line.partition("\t")
    if not tab:
        raise InputError(
            f"{where} has no tab: a line must be a query, a tab and a text. For JSONL give --input-format jsonl; for "
            "the documents of one query give --query TEXT --documents FILE."
        )
    return Row(index, found, text)


def _is_jsonl(name: str, first: str) -> bool:
    bare = name.removesuffix(".gz")
    if bare.endswith((".jsonl", ".ndjson", ".json")):
        return True
    if bare.endswith((".tsv", ".txt")):
        return False
    try:
        return isinstance(orjson.loads(first), dict)
    except orjson.JSONDecodeError:
        return False


@contextmanager
def _lines(name: str) -> Iterator[TextIO]:
    if name != _STDIN:
        with open_text(name) as handle:
            yield handle
        return
    with storage_errors(_name(name)):
        handle = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig")
        try:
            yield handle
        finally:
            handle.detach()  # closing standard input is not ours to do


def _ranked(group: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Best first; equal logits in the order of the input."""
    order = np.argsort([-row["logit"] for row in group], kind="stable").tolist()
    return [group[i] | {"rank": rank} for rank, i in enumerate(order, start=1)]


def _table(ranking: list[dict[str, Any]]) -> Table:
    query = str(ranking[0].get("query", ranking[0].get("query_id")))
    table = Table(box=box.SIMPLE, title=escape(query), title_justify="left")
    for name in ("rank", "score", "logit"):
        table.add_column(name, justify="right")
    table.add_column("cut")
    table.add_column("document")
    for row in ranking:
        text = " ".join(row["text"][row.get("best_chunk_start") or 0 :][: 2 * _TABLE_CHARACTERS].split())
        short = text[:_TABLE_CHARACTERS] + ("…" if len(text) > _TABLE_CHARACTERS else "")
        shown = f"{row['doc_id']}: {short}" if "doc_id" in row else short
        table.add_row(
            *(str(row["rank"]), f"{row['score']:.4f}", f"{row['logit']:.4f}", "yes" if row["truncated"] else ""),
            escape(shown),
        )
    return table


def _fields(query: str | None) -> str:
    return "query and text" if query is None else "text"


def _name(source: str) -> str:
    return "standard input" if source == _STDIN else source
