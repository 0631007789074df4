"""Lines are read one by one, and none is held that is longer than its limit."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from rankmill.errors import DamagedInputError, InputError
from rankmill.tables.lines import LINE_BYTES, AnyLine, TooLong, in_chunks, line_limit, read_any_lines, read_lines
from rankmill.tables.locate import InputFile, list_files
from tests.memory import MIB, peak_growth

FORMS = ["in.jsonl", "in.jsonl.gz"]


def text_file(folder: Path, body: bytes, name: str) -> InputFile:
    (folder / name).write_bytes(gzip.compress(body, 1) if name.endswith(".gz") else body)
    return list_files(str(folder / name))[0]


def one_line_of(folder: Path, blocks: Iterator[bytes], name: str) -> InputFile:
    """A file that is written without being held either."""
    pack = zlib.compressobj(1, wbits=31) if name.endswith(".gz") else None
    with (folder / name).open("wb") as out:
        for block in blocks:
            out.write(block if pack is None else pack.compress(block))
        out.write(b"" if pack is None else pack.flush())
    return list_files(str(folder / name))[0]


@pytest.mark.parametrize("name", FORMS)
def test_a_line_that_is_too_long_is_counted_and_the_next_one_is_where_it_should_be(name: str, tmp_path: Path) -> None:
    body = b"ab\n" + b"x" * 25 + b"\n\n  \n" + b"y" * 9 + b"\n" + b" " * 30 + b"\n" + b"z" * 11
    file = text_file(tmp_path, body, name)
    found = list(read_any_lines(file, 0, 0, limit=10))
    assert found == [
        (0, 0, b"ab\n"),
        (1, 3, TooLong(26, 10)),
        (2, 33, b"y" * 9 + b"\n"),
        (3, 43, TooLong(31, 10)),
        (4, 74, TooLong(11, 10)),
    ]
    for number, offset, _ in found:
        assert list(read_any_lines(file, number, offset, limit=10)) == found[number:]
    assert list(read_any_lines(file, 1, 3, 3, limit=10)) == found[1:3]


@pytest.mark.parametrize("name", FORMS)
def test_a_line_that_ends_at_the_limit_is_not_too_long(name: str, tmp_path: Path) -> None:
    file = text_file(tmp_path, b"123456789\n1234567890\n1234567890", name)
    assert [line for _, _, line in read_any_lines(file, 0, 0, limit=10)] == [
        b"123456789\n",
        TooLong(11, 10),
        b"1234567890",
    ]


@pytest.mark.parametrize("name", FORMS)
def test_a_file_that_is_one_line_is_refused_in_bounded_memory(name: str, tmp_path: Path) -> None:
    """300 MiB of nothing but one letter; a megabyte and a half where it is compressed."""
    file = one_line_of(tmp_path, (b"x" * MIB for _ in range(300)), name)
    with peak_growth() as grown, pytest.raises(InputError) as refused:
        list(read_lines(file, 0, 0))
    assert str(refused.value).startswith(
        f"{file.uri}, line 1 (without blank ones): the line has 314,572,800 bytes, and 67,108,864 are allowed"
    )
    assert grown() < 200 * MIB


def test_a_long_line_that_is_cut_short_is_damaged(tmp_path: Path) -> None:
    file = text_file(tmp_path, bytes(range(256)).replace(b"\n", b"") * 100, "in.jsonl.gz")
    body = Path(file.uri).read_bytes()
    Path(file.uri).write_bytes(body[:-20])
    with pytest.raises(DamagedInputError, match="damaged or cut short"):
        list(read_any_lines(list_files(file.uri)[0], 0, 0, limit=10))


def test_what_is_too_long_takes_no_room_in_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rankmill.tables.lines._CHUNK_BYTES", 20)
    lines: list[AnyLine] = [
        (0, 0, b"x" * 12),
        (1, 12, TooLong(10**12, 100)),
        (2, 10**12, b"y" * 12),
        (3, 10**12 + 12, b"z"),
    ]
    assert [len(chunk) for chunk in in_chunks(lines)] == [3, 1]


def test_the_limit_follows_that_of_texts() -> None:
    assert line_limit(1) == line_limit(16 * MIB) == LINE_BYTES == 64 * MIB
    assert line_limit(100 * MIB) == 400 * MIB
