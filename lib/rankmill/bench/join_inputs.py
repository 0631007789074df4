"""A run, its queries and its corpus, drawn with a seed: as large as wanted, written a piece at a time."""

import gzip
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rankmill.settings.join_bench import JoinBenchSettings

_ROWS = 50_000  # written at a time
_FILES = 8  # of a corpus in Parquet


@dataclass(frozen=True, slots=True)
class JoinInputs:
    """Where the tables are."""

    run: Path
    queries: Path
    corpus: Path


def make(settings: JoinBenchSettings, folder: Path) -> JoinInputs:
    """Write the tables; the same settings always give the same rows.

    Every query asks for documents drawn from the whole corpus, so that each file of it is asked for by all queries.
    """
    draw = np.random.default_rng(17)
    queries = -(-settings.pairs // settings.candidates)
    if settings.form == "parquet":
        found = JoinInputs(folder / "run.parquet", folder / "queries.parquet", folder / "corpus")
        _write_corpus(found.corpus, settings, draw)
        _write([_texts("query", 0, queries, 8, draw)], [found.queries])
        _write(_run(settings, draw), [found.run])
        return found
    found = JoinInputs(folder / "run.trec.gz", folder / "queries.jsonl", folder / "corpus.jsonl")
    _write_lines(_pieces(settings.documents, "text", settings.words, draw), found.corpus)
    _write_lines([_texts("text", 0, queries, 8, draw)], found.queries)
    with gzip.open(found.run, "wb", compresslevel=1) as out:
        for table in _run(settings, draw):
            columns = [table.column(name).cast(pa.string()) for name in ("query_id", "doc_id", "retrieval_score")]
            ids = pc.binary_join_element_wise(columns[0], "Q0", columns[1], "0", columns[2], "x", " ")
            out.write("".join(f"{line}\n" for line in ids.to_pylist()).encode())
    return found


def _write_corpus(folder: Path, settings: JoinBenchSettings, draw: np.random.Generator) -> None:
    folder.mkdir()
    files = [folder / f"{number}.parquet" for number in range(_FILES)]
    _write(_pieces(settings.documents, "text", settings.words, draw), files)


def _pieces(count: int, text: str, words: int, draw: np.random.Generator) -> Iterator[pa.Table]:
    for start in range(0, count, _ROWS):
        yield _texts(text, start, min(start + _ROWS, count), words, draw)


def _texts(text: str, start: int, stop: int, words: int, draw: np.random.Generator) -> pa.Table:
    """Ids and texts of `words` words on average, of a vocabulary of 50,000."""
    lengths = draw.integers(1, 2 * words, stop - start)
    numbers = draw.integers(0, 50_000, int(lengths.sum()))
    vocabulary = pa.array([f"w{number:05}" for number in range(50_000)])
    offsets = pa.array(np.append(0, np.cumsum(lengths)), pa.int32())
    drawn = pc.binary_join(pa.ListArray.from_arrays(offsets, vocabulary.take(pa.array(numbers))), " ")
    letter = "q" if text == "query" else "d"
    ids = pa.array([f"{letter}{number}" for number in range(start, stop)])
    return pa.table({"query_id" if text == "query" else "doc_id": ids, text: drawn})


def _run(settings: JoinBenchSettings, draw: np.random.Generator) -> Iterator[pa.Table]:
    letter = "q" if settings.form == "parquet" else "d"  # BEIR's two tables have the same columns
    for start in range(0, settings.pairs, _ROWS):
        rows = np.arange(start, min(start + _ROWS, settings.pairs))
        queries = pc.binary_join_element_wise(letter, pa.array(rows // settings.candidates).cast(pa.string()), "")
        drawn = pa.array(draw.integers(0, settings.documents, len(rows))).cast(pa.string())
        documents = pc.binary_join_element_wise("d", drawn, "")
        scores = pa.array(-(rows % settings.candidates).astype(np.float64))
        yield pa.table({"query_id": queries, "doc_id": documents, "retrieval_score": scores})


def _write(tables: Iterator[pa.Table] | list[pa.Table], paths: list[Path]) -> None:
    """Deal the tables out over Parquet files."""
    with ExitStack() as stack:
        writers: dict[Path, pq.ParquetWriter] = {}
        for number, table in enumerate(tables):
            path = paths[number % len(paths)]
            if path not in writers:
                writers[path] = stack.enter_context(pq.ParquetWriter(path, table.schema, write_page_checksum=True))
            writers[path].write_table(table)


def _write_lines(tables: Iterator[pa.Table] | list[pa.Table], path: Path) -> None:
    with path.open("wb") as out:
        for table in tables:
            pairs = zip(*(table.column(name).to_pylist() for name in ("doc_id", "text")), strict=True)
            out.writelines(f'{{"_id": "{key}", "text": "{text}"}}\n'.encode() for key, text in pairs)
