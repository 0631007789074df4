"""A minimal S3 server on loopback, in memory: fast enough that what is measured is the client, not the server.

It speaks what a job needs: PUT (also `If-None-Match: *`), GET (ranges, `If-Match`), HEAD, DELETE, DeleteObjects and
ListObjectsV2, for any bucket and any key, without looking at signatures. moto answers some hundred requests a second,
this one thousands.
"""

import asyncio
import bisect
import os
import re
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

COUNT = "/"
"""Where the server says how many requests it has answered; S3 itself would list buckets there."""

_PAGE = 1000
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_KEY = re.compile(r"<Key>([^<]*)</Key>")
_XML = '<?xml version="1.0" encoding="UTF-8"?>'
_TIME = "Thu, 01 Jan 2026 00:00:00 GMT"


@dataclass(frozen=True, slots=True)
class Object:
    """What lies under a key."""

    body: bytes
    etag: str
    headers: dict[str, str]
    """The `x-amz-meta-` ones it came with."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, its body read."""

    method: str
    path: str
    """Unquoted: `/bucket/key`."""
    query: dict[str, list[str]]
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


Answer = tuple[HTTPStatus, dict[str, str], bytes]


class Bucket:
    """All objects of all buckets, by path."""

    def __init__(self) -> None:
        self._objects: dict[str, Object] = {}
        self._sorted: list[str] = []
        self._requests = 0

    def answer(self, request: Request) -> Answer:
        """Do what a request says."""
        if request.path == COUNT:
            return HTTPStatus.OK, {}, str(self._requests).encode()
        self._requests += 1
        bodies = {"list-type": self._list, "delete": self._delete_all}
        for parameter, act in bodies.items():
            if parameter in request.query:
                return HTTPStatus.OK, {"Content-Type": "application/xml"}, act(request)
        if request.path.count("/") < 2:  # the bucket itself: there is every one
            return HTTPStatus.OK, {}, b""
        return {"PUT": self._put, "DELETE": self._delete_one}.get(request.method, self._get)(request)

    def _delete_all(self, request: Request) -> bytes:
        keys = _KEY.findall(request.body.decode())
        for key in keys:
            self._delete(f"/{request.path.strip('/')}/{unescape(key)}")
        deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        return f'{_XML}<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{deleted}</DeleteResult>'.encode()

    def _delete_one(self, request: Request) -> Answer:
        self._delete(request.path)
        return HTTPStatus.NO_CONTENT, {}, b""

    def _delete(self, path: str) -> None:
        if self._objects.pop(path, None) is not None:
            del self._sorted[bisect.bisect_left(self._sorted, path)]

    def _put(self, request: Request) -> Answer:
        if request.headers.get("if-none-match") == "*" and request.path in self._objects:
            return HTTPStatus.PRECONDITION_FAILED, {}, _error("PreconditionFailed")
        if request.path not in self._objects:
            bisect.insort(self._sorted, request.path)
        kept = {name: value for name, value in request.headers.items() if name.startswith("x-amz-meta-")}
        there = self._objects[request.path] = Object(request.body, f'"{uuid.uuid4().hex}"', kept)
        return HTTPStatus.OK, {"ETag": there.etag}, b""

    def _get(self, request: Request) -> Answer:
        there = self._objects.get(request.path)
        if there is None:
            return HTTPStatus.NOT_FOUND, {}, _error("NoSuchKey")
        if request.headers.get("if-match", there.etag) != there.etag:
            return HTTPStatus.PRECONDITION_FAILED, {}, _error("PreconditionFailed")
        headers = {"ETag": there.etag, "Last-Modified": _TIME, "Accept-Ranges": "bytes", **there.headers}
        wanted = _RANGE.fullmatch(request.headers.get("range", ""))
        if wanted is None or not there.body:
            return HTTPStatus.OK, headers, there.body
        size = len(there.body)
        if wanted[1]:
            start, stop = int(wanted[1]), min(int(wanted[2] or size) + 1, size)
        else:
            start, stop = max(0, size - int(wanted[2])), size
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        return HTTPStatus.PARTIAL_CONTENT, headers, there.body[start:stop]

    def _list(self, request: Request) -> bytes:
        def given(name: str) -> str:
            return request.query.get(name, [""])[0]

        bucket = request.path.split("/")[1]
        base = f"/{bucket}/"
        first, after, delimiter = base + given("prefix"), given("continuation-token"), given("delimiter")
        place = bisect.bisect_right(self._sorted, after) if after else bisect.bisect_left(self._sorted, first)
        found: list[str] = []
        folders: dict[str, None] = {}
        limit, last = int(given("max-keys") or _PAGE), ""
        while place < len(self._sorted) and self._sorted[place].startswith(first) and len(found) < limit:
            last = self._sorted[place]
            below, cut, _ = last.removeprefix(first).partition(delimiter) if delimiter else ("", "", "")
            if cut:
                folders[first.removeprefix(base) + below + cut] = None
            else:
                found.append(last)
            place += 1
        more = place < len(self._sorted) and self._sorted[place].startswith(first)
        entries = "".join(self._entry(path, base) for path in found)
        entries += "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders)
        token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if more else ""
        return (
            f'{_XML}<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><Prefix>{escape(given('prefix'))}</Prefix><MaxKeys>{limit}</MaxKeys>"
            f"<KeyCount>{len(found) + len(folders)}</KeyCount><IsTruncated>{str(more).lower()}</IsTruncated>"
            f"{entries}{token}</ListBucketResult>"
        ).encode()

    def _entry(self, path: str, base: str) -> str:
        there = self._objects[path]
        return (
            f"<Contents><Key>{escape(path.removeprefix(base))}</Key><LastModified>2026-01-01T00:00:00.000Z"
            f"</LastModified><ETag>{escape(there.etag)}</ETag><Size>{len(there.body)}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )


def _error(code: str) -> bytes:
    return f"{_XML}<Error><Code>{code}</Code></Error>".encode()


async def _serve(bucket: Bucket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection, kept alive."""
    try:
        while True:
            head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
            method, target, _ = head.split(" ", 2)
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if headers.get("expect"):
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            parts = urlsplit(target)
            query = parse_qs(parts.query, keep_blank_values=True)
            status, answer, content = bucket.answer(Request(method, unquote(parts.path), query, headers, body))
            fields = "".join(f"{name}: {value}\r\n" for name, value in answer.items())
            top = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Length: {len(content)}\r\n{fields}\r\n".encode()
            writer.write(top if method == "HEAD" else top + content)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _main() -> None:
    bucket = Bucket()
    server = await asyncio.start_server(lambda reader, writer: _serve(bucket, reader, writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(f"http://127.0.0.1:{port}\n")
    sys.stdout.flush()
    await server.serve_forever()


def requests_of(url: str) -> int:
    """How many requests a server of ours has answered."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}{COUNT}") as answer:
        return int(answer.read())


@contextmanager
def s3_server() -> Iterator[str]:
    """Run the server as a process of its own; yields its URL. The environment says for so long that S3 is there."""
    command = [sys.executable, "-m", "rankmill.bench.scale.s3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603 - our own command
        try:
            url = server.stdout.readline().strip() if server.stdout else ""
            with _environment(url):
                yield url
        finally:
            server.kill()


@contextmanager
def _environment(url: str) -> Iterator[None]:
    """What any S3 client must be told to use the server, and nothing but the server; workers inherit it."""
    values = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "scale",
        "AWS_SECRET_ACCESS_KEY": "scale",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    hidden = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE")
    before = {name: os.environ.get(name) for name in (*values, *hidden)}
    try:
        for name in hidden:
            os.environ.pop(name, None)
        os.environ.update(values)
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


if __name__ == "__main__":
    asyncio.run(_main())
