"""One flipped bit in a page header or in a footer: the same rows, or an error; no row lost, moved or made up."""

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rankmill.errors import DamagedInputError, InputError
from rankmill.evaluation.read import read_results
from rankmill.retrieval.corpus import open_corpus
from rankmill.settings.storage import StorageSettings
from rankmill.tables.complete import open_parquet, read_groups
from rankmill.tables.errors import storage_errors
from rankmill.tables.footers import read_footer
from rankmill.tables.locate import InputFile, list_files, open_file
from rankmill.tables.parquet import Chosen, read_batches

ROOT = Path(__file__).parents[2]
ROWS = pa.table({"query_id": [f"q{n // 4}" for n in range(24)], "text": [f"dog {n * n}" for n in range(24)]})
BOTH = Chosen(frozenset({"query_id", "text"}))
TEXT = 1
"""The column that is damaged."""
KINDS: dict[str, dict[str, Any]] = {
    "dictionary": {},
    "version 2": {"data_page_version": "2.0", "use_dictionary": False},
}


def written(folder: Path, table: pa.Table = ROWS, rows: int = 8, **options: Any) -> InputFile:
    """A file with checksums; its version is not looked at, for it is damaged where it lies."""
    path = folder / "in.parquet"
    pq.write_table(table, path, row_group_size=rows, write_page_checksum=True, write_statistics=False, **options)
    return replace(list_files(str(path))[0], version="")


def flipped(body: bytes, at: int, bit: int) -> bytes:
    damaged = bytearray(body)
    damaged[at] ^= 1 << bit
    return bytes(damaged)


def headers(path: Path) -> list[int]:
    """Places of all bytes of the page headers of the texts, and of some of what follows them."""
    meta = pq.read_metadata(path)
    places = set()
    for group in range(meta.num_row_groups):
        chunk = meta.row_group(group).column(TEXT)
        data, first = chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset
        end = first + chunk.total_compressed_size
        places |= {*range(first, min(first + 28, end)), *range(data, min(data + 28, end))}
    return sorted(places)


def rows_of(file: InputFile) -> list[tuple[int, Any]]:
    """(number, row) as they are read."""
    return [
        (number + at, row)
        for number, batch in read_batches(file, BOTH, 0, 100)
        for at, row in enumerate(pa.Table.from_batches([batch]).to_pylist())
    ]


def ends_of_flips(file: InputFile, read: Callable[[InputFile], object], refusal: type[InputError]) -> Counter[str]:
    """How often the same comes, a refusal, or something else, with each bit of the page headers flipped in turn."""
    path, whole = Path(file.uri), read(file)
    body = path.read_bytes()
    ends: Counter[str] = Counter()
    for place in headers(path):
        for bit in range(8):
            path.write_bytes(flipped(body, place, bit))
            try:
                end = "same" if read(file) == whole else f"other rows: byte {place}, bit {bit}"
            except refusal:
                end = "damaged"
            ends[end] += 1
    return ends


@pytest.mark.parametrize("kind", KINDS)
def test_no_bit_of_a_page_header_changes_rows_unnoticed(kind: str, tmp_path: Path) -> None:
    file = written(tmp_path, **KINDS[kind])
    ends = ends_of_flips(file, rows_of, DamagedInputError)
    assert set(ends) == {"same", "damaged"}, ends


def read_run(file: InputFile) -> object:
    return read_results(file.uri).to_pylist()


def read_corpus(file: InputFile) -> object:
    corpus = open_corpus(file.uri, StorageSettings(), doc_id="query_id")
    return [table.to_pylist() for table in replace(corpus, files=(file,)).read(0, 100)]


def read_table(file: InputFile) -> object:
    with storage_errors(file.uri), open_file(file) as handle:
        parquet = open_parquet(file, handle)
        return read_groups(file, parquet, range(parquet.num_row_groups), ["text"]).to_pylist()


@pytest.mark.parametrize(("read", "name"), [(read_run, "doc_id"), (read_corpus, "text"), (read_table, "text")])
def test_who_reads_whole_files_loses_no_row_either(
    read: Callable[[InputFile], object], name: str, tmp_path: Path
) -> None:
    """Runs and judgements, a corpus, and scores that are reused."""
    table = ROWS.rename_columns(["query_id", name]).append_column("score", pa.array(range(24), pa.float64()))
    file = written(tmp_path, table, use_dictionary=False)
    ends = ends_of_flips(file, read, InputError)
    assert set(ends) == {"same", "damaged"}, ends


def test_checked_rows_are_none_that_a_lost_page_has_moved(tmp_path: Path) -> None:
    """The first page of a large row group is skipped: the texts of later rows would stand in its place."""
    table = pa.table({"query_id": [str(n) for n in range(4000)], "text": [f"dog {n} " * 40 for n in range(4000)]})
    file = written(tmp_path, table, 4000, use_dictionary=False, data_page_size=100_000, compression="none")
    path = Path(file.uri)
    offset = pq.read_metadata(path).row_group(0).column(TEXT).data_page_offset
    path.write_bytes(flipped(path.read_bytes(), offset + 1, 1))
    _, moved = next(read_batches(file, BOTH, 0, 4000))
    assert moved.column("text")[0] != table["text"][0], "the control: what comes before the error is wrong"
    with pytest.raises(DamagedInputError, match="cannot be read"):
        next(read_batches(file, BOTH, 0, 4000, checked=True))


def look_at_footers(folder: str) -> None:
    """In a process of its own: read files of which one bit of the footer is flipped, each fifth one."""
    file = written(Path(folder), ROWS.select(["text"]), 24)
    path = Path(file.uri)
    body = path.read_bytes()
    start = len(body) - 8 - int.from_bytes(body[-8:-4], "little")
    for number in range(start * 8, len(body) * 8, 5):
        path.write_bytes(flipped(body, number // 8, number % 8))
        with suppress(DamagedInputError):
            footer = read_footer(file)
            if "text" not in footer.schema.names:
                continue
            found = sum(len(batch) for _, batch in read_batches(file, Chosen(frozenset({"text"})), 0, 100))
            assert found == 24, f"byte {number // 8}, bit {number % 8}: {found} rows"


def test_no_bit_of_a_footer_ends_the_process_or_loses_a_row(tmp_path: Path) -> None:
    """Arrow aborts the process when it is asked for some chunks that it cannot make sense of."""
    look = "import sys; from tests.tables.test_damaged_headers import look_at_footers; look_at_footers(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", look, str(tmp_path)],
        env={"PYTHONPATH": f"{ROOT / 'lib'}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
