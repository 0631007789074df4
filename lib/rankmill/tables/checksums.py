"""Whether a file carries checksums: without them nobody notices a byte that flipped before the file was read.

Parquet readers verify the checksums of pages where there are any and say nothing where there are none; Arrow does not
tell which. So the first page's header is read here: a struct of Thrift's compact protocol whose first fields are

    1: i32 type   2: i32 uncompressed_page_size   3: i32 compressed_page_size   4: optional i32 crc
"""

from typing import IO

import pyarrow.parquet as pq

_I32 = 5  # the compact protocol's number of the type
_NEXT = 1 << 4  # how far the field's number is from that of the one before
_BEFORE = 3  # required fields, before the checksum
_HEADER_BYTES = 32  # four fields of at most six bytes


def has_checksums(handle: IO[bytes], meta: pq.FileMetaData) -> bool:
    """Whether the pages of a Parquet file have checksums, by its first one; a file without pages has nothing to check.

    Args:
        handle: the file.
        meta: its footer.

    Raises:
        OSError: it cannot be read.
    """
    for index in range(meta.num_row_groups):
        if meta.row_group(index).num_rows and meta.num_columns:
            chunk = meta.row_group(index).column(0)
            starts = [start for start in (chunk.dictionary_page_offset, chunk.data_page_offset) if start and start > 0]
            if not starts:
                return False  # a damaged footer: whoever reads the page will say so
            handle.seek(min(starts))
            return crc_in(handle.read(_HEADER_BYTES))
    return True


def crc_in(header: bytes) -> bool:
    """Whether a page header, from its first byte on, has the field `crc`."""
    at = 0
    for _ in range(_BEFORE):
        if header[at : at + 1] != bytes([_NEXT | _I32]):
            return False  # no page header: whoever reads the page will say so
        at += 1
        while header[at : at + 1] and header[at] & 0x80:  # a varint: all of its bytes but the last have the high bit
            at += 1
        at += 1
    return header[at : at + 1] == bytes([_NEXT | _I32])
