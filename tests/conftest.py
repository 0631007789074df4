"""Fixtures that more than one folder of tests uses."""

import logging
import os
import secrets
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import boto3  # type: ignore[import-untyped]
import pytest
from hypothesis import settings

from tests.s3_server import CLEARED, running_s3_server, s3_environment

_RAY_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listen on 127.0.0.1 alone
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "OMP_NUM_THREADS": "1",  # tiny models lose more to threads that wait for each other than they gain
}
# Ray reads these when it is imported, which test modules do while they are collected: after this file.
os.environ.update(_RAY_ENVIRONMENT)
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # without one, Ray would write ~/.ray/auth_token
os.environ.pop("RAY_ADDRESS", None)

# A shell lets what it starts in the background ignore SIGINT, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A commit passes or fails, whatever the day. Who looks for more gives `--hypothesis-profile explore`.
settings.register_profile("explore", derandomize=False)
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest tests/batch/test_torture.py --torture-jobs 50 --torture-seed 7`: the long run, and one run again."""
    parser.addoption("--torture-jobs", type=int, default=1, help="jobs of the torture test (each a minute or less)")
    parser.addoption("--torture-seed", type=int, default=None, help="its dice (default: other ones each time)")


@dataclass(frozen=True, slots=True)
class S3Bucket:
    """An empty bucket of its own for one test; the environment variables for it are set, in this process."""

    endpoint: str
    bucket: str
    environment: dict[str, str]
    """The same variables, for a subprocess that gets a hand-made environment."""

    def uri(self, path: str = "") -> str:
        """The `s3://` address of a key."""
        return f"s3://{self.bucket}/{path}"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The URL of an S3 server that lives as long as the session."""
    with running_s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> S3Bucket:
    environment = s3_environment(s3_endpoint)
    for name in CLEARED:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    bucket = f"test-{uuid.uuid4().hex}"
    client = boto3.client("s3")
    client.create_bucket(Bucket=bucket)
    client.close()
    return S3Bucket(s3_endpoint, bucket, environment)


@pytest.fixture(scope="session")
def local_ray(s3_endpoint: str) -> Iterator[None]:
    """A Ray cluster of 3 CPUs on loopback, shared by the session; its workers know the S3 server of the `s3` fixture.

    Workers inherit their environment from the cluster, not from the test: that is why the server comes first.
    """
    import ray  # noqa: PLC0415  tests without Ray need not wait for it

    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_environment(s3_endpoint).items():
            patch.setenv(name, value)
        ray.init(address="local", num_cpus=3, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def _logger_as_python_made_it() -> None:
    """Undo what commands that ran in this process did to rankmill's logger: nobody would hear of it any more."""
    logger = logging.getLogger("rankmill")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)
