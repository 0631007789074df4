"""A careful reader (F20): what it may see of an output at any moment, and a thread that looks all the time.

It asks the store itself, not through the library. Part files appear whole and never change; before `_SUCCESS` nothing
is promised, and with `_SUCCESS` everything that the job recorded is there.
"""

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import boto3  # type: ignore[import-untyped]
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from rankmill.batch import manifest, output
from rankmill.batch.receipts import Receipt

_PAUSE_SECONDS = 0.1
_FOREVER = ("part-", "_rejected/part-", "_rankmill/commits/", output.JOB, manifest.MANIFEST, output.SUCCESS)
"""What is written once: nobody may see it change."""
_NEVER_DELETED = ("part-", "_rankmill/commits/", output.JOB, manifest.MANIFEST, output.SUCCESS)

Versions = Mapping[str, str]


def refuse_partial_result(objects: Mapping[str, bytes]) -> None:
    """Read the folder as a careful reader does: nothing before `_SUCCESS`, everything after it; AssertionError."""
    if output.SUCCESS not in objects:
        return
    success = orjson.loads(objects[output.SUCCESS])
    assert manifest.MANIFEST in objects, "_SUCCESS without a manifest"
    assert _sha256(objects[manifest.MANIFEST]) == success["manifest_sha256"], "_SUCCESS names another manifest"
    said = orjson.loads(objects[manifest.MANIFEST])
    planned = orjson.loads(objects[output.JOB])["plan"]["shards"]
    assert [part["shard"] for part in said["parts"]] == list(range(planned)), "_SUCCESS without all parts"
    rows = 0
    for part in said["parts"]:
        assert part["key"] in objects, f"_SUCCESS without {part['key']}"
        body = objects[part["key"]]
        assert _sha256(body) == part["sha256"], f"{part['key']} is not what the manifest says"
        rows += part["pairs"]
    for key, digest in said["commits"].items():
        assert key in objects, f"_SUCCESS without {key}"
        assert _sha256(objects[key]) == digest, f"{key} is not what the manifest says"
        receipt = Receipt.from_json(objects[key])
        assert receipt.part_sha256 == _sha256(objects[receipt.part]), f"{key} speaks of another {receipt.part}"
    assert rows == success["rows_out"], f"{rows} rows, and _SUCCESS says {success['rows_out']}"


@dataclass
class Reader:
    """Looks at one output again and again; what it finds wrong is in `violations`."""

    list_versions: Callable[[], Versions]
    """Keys of what is there, each with something that changes when its content does."""
    read: Callable[[str], bytes]
    """FileNotFoundError where nothing is."""

    def __post_init__(self) -> None:
        self.looks = 0
        self.violations: list[str] = []
        self._seen: dict[str, str] = {}
        self._bodies: dict[str, bytes] = {}
        self._complete = False

    def look(self) -> None:
        """Look once, `_SUCCESS` first: what it promises must be there by then."""
        complete = self._complete or output.SUCCESS in self.list_versions()
        there = self.list_versions()
        self.looks += 1
        for key in self._seen.keys() - there.keys():
            if key.startswith(_NEVER_DELETED):
                self._complain(f"{key} was there and is gone")
        for key, version in there.items():
            if key.startswith(_FOREVER) and self._seen.get(key) != version:
                self._take(key)
                self._seen[key] = version
        if complete and not self._complete:
            self._complete = True
            try:
                refuse_partial_result(self._bodies)
            except AssertionError as violation:
                self._complain(str(violation))

    def _take(self, key: str) -> None:
        try:
            body = self.read(key)
        except FileNotFoundError:
            return  # the next look says whether it may be gone
        if self._bodies.get(key, body) != body:
            self._complain(f"{key} has changed")
        self._bodies[key] = body
        if key.endswith(".parquet"):
            try:
                pq.read_table(pa.BufferReader(body), page_checksum_verification=True)
            except (pa.ArrowException, OSError) as error:
                self._complain(f"{key} is not whole: {error}")

    def _complain(self, sentence: str) -> None:
        if sentence not in self.violations:
            self.violations.append(sentence)


def reader_of(uri: str, endpoint: str | None = None) -> Reader:
    """A reader of a local folder, or of a bucket at an endpoint."""
    if not uri.startswith("s3://"):
        root = Path(uri)
        return Reader(lambda: _local_versions(root), lambda key: (root / key).read_bytes())
    place = urlsplit(uri)
    bucket, prefix = place.netloc, place.path.strip("/") + "/"
    client = boto3.client("s3", endpoint_url=endpoint)

    def versions() -> Versions:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        items = [item for page in pages for item in page.get("Contents", ())]
        return {item["Key"].removeprefix(prefix): item["ETag"] for item in items}

    def read(key: str) -> bytes:
        try:
            return bytes(client.get_object(Bucket=bucket, Key=prefix + key)["Body"].read())
        except client.exceptions.NoSuchKey as error:
            raise FileNotFoundError(key) from error

    return Reader(versions, read)


@contextmanager
def polled(output_folder: str | Path, endpoint: str | None = None) -> Iterator[Reader]:
    """Have a reader look at an output for the length of a `with` block.

    Args:
        output_folder: local path or `s3://` URI; it need not be there yet.
        endpoint: of the S3 server, without the faults of a proxy.

    Raises:
        AssertionError: what the reader has seen should not be.
    """
    reader, over = reader_of(str(output_folder), endpoint), threading.Event()
    failures: list[Exception] = []

    def keep_looking() -> None:
        try:
            while not over.wait(_PAUSE_SECONDS):
                reader.look()
            reader.look()
        except Exception as error:  # noqa: BLE001 - raised again where somebody sees it
            failures.append(error)

    thread = threading.Thread(target=keep_looking, name="reader", daemon=True)
    thread.start()
    try:
        yield reader
    finally:
        over.set()
        thread.join()
    if failures:
        raise failures[0]
    if reader.violations or not reader.looks:
        raise AssertionError(f"after {reader.looks} looks: {'; '.join(reader.violations)}")


def _local_versions(root: Path) -> Versions:
    found = {}
    for path in root.rglob("*"):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file():
            found[path.relative_to(root).as_posix()] = f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"
    return found


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
