"""A real S3 server on loopback, as a process of its own: Ray workers are other processes and must reach it too."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

_READY_SECONDS = 60.0

_MOTO = """
import sys, threading
from moto.s3.responses import S3Response
from moto.server import main

put, one_at_a_time = S3Response._key_response_put, threading.Lock()

def put_alone(*args, **kwargs):
    with one_at_a_time:
        return put(*args, **kwargs)

S3Response._key_response_put = put_alone
main(sys.argv[1:])
"""
"""moto looks whether something is there before it writes, and between the two, on a busy machine, another thread may
write: of eight conditional PUTs two won. S3 promises one."""

CLEARED = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN")
"""Variables of the developer's own account that would win over the ones below."""


@contextmanager
def running_s3_server() -> Iterator[str]:
    """Yield the endpoint URL of an empty, ready server; kill it, by pid, at the end.

    Raises:
        RuntimeError: the server ended, or did not answer within a minute.
    """
    port = _free_port()
    endpoint = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _MOTO, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # it logs every request
    )
    try:
        _wait_until_ready(endpoint, server)
        yield endpoint
    finally:
        server.kill()
        server.wait()


def s3_environment(endpoint: str) -> dict[str, str]:
    """What a process needs in its environment to use the server with any client, and nothing but the server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "testsecret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",  # else clients wait for a metadata server that is not there
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",  # else uploads have no Content-Length: many stores say 411
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(endpoint: str, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _READY_SECONDS
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(f"the S3 server for {endpoint} ended with code {server.returncode} before it was ready")
        try:
            opener.open(f"{endpoint}/moto-api/", timeout=5).close()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"the S3 server at {endpoint} did not answer within {_READY_SECONDS:g} s")
