"""A Ray cluster of several machines, all of them on loopback, that loses machines when it is told to.

It is kept by a process of its own, because Ray can be in one cluster only per process; every process of it carries a
tag in its environment, by which all of them are found and ended.
"""

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from tests.cluster.processes import command_of, end_all_with, pids_with

TAG = "RANKMILL_TEST_TAG"
_STORE_BYTES = 100 << 20
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class RayCluster:
    """A running cluster."""

    address: str
    environment: Mapping[str, str]
    """For drivers: with the tag, so that they end with the cluster."""
    keeper: "subprocess.Popen[str]"
    errors: IO[str]
    """What the keeper writes to stderr."""

    def lose_a_machine(self) -> None:
        """SIGKILL to the raylet of the oldest machine beside the head; another one joins."""
        self._tell("lose")

    def lose_the_head(self) -> None:
        """SIGKILL to the control store."""
        self._tell("behead")

    def rerank(self, *flags: object) -> "subprocess.Popen[str]":
        """Start `rankmill rerank --address …` with these flags; stderr is piped."""
        command = [sys.executable, "-m", "rankmill", "rerank", "--address", self.address, *map(str, flags)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=self.environment)

    def processes(self, words: str) -> list[int]:
        """Processes of the cluster and its jobs whose command line has these words."""
        return [pid for pid in pids_with(TAG, self.environment[TAG]) if words in " ".join(command_of(pid))]

    def _tell(self, order: str) -> None:
        keeper = self.keeper
        if keeper.stdin is None or keeper.stdout is None:
            raise RuntimeError("the keeper has no pipes")
        keeper.stdin.write(f"{order}\n")
        keeper.stdin.flush()
        if keeper.stdout.readline() != f"{order}: done\n":
            keeper.wait()
            raise RuntimeError(f"the keeper of the cluster could not {order}: {_end_of(self.errors)}")


@contextmanager
def running_cluster(machines: int, environment: Mapping[str, str], head_cpus: int = 1) -> Iterator[RayCluster]:
    """Start a cluster; every process that has its tag is ended afterwards.

    Args:
        machines: beside the head, of two CPUs each.
        environment: of its processes, on top of this one's without Ray's variables.
        head_cpus: CPUs of the head.
    """
    tag = secrets.token_hex(8)
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    own |= {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
        "RAY_AUTH_MODE": "disabled",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # 127.0.0.1 alone
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "5",  # after which whoever lost its head gives up; 60 by default
        "RAY_health_check_period_ms": "1000",
        TAG: tag,
        **environment,
    }
    command = [sys.executable, "-m", "tests.batch.ray_cluster", str(machines), str(head_cpus)]
    pipe = subprocess.PIPE
    with tempfile.TemporaryFile("w+") as errors:
        keeper = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, env=own)
        try:
            address = keeper.stdout.readline().strip() if keeper.stdout else ""
            if not address:
                keeper.wait()
                raise RuntimeError(f"the cluster did not start: {_end_of(errors)}")
            yield RayCluster(address, own, keeper, errors)
        finally:
            keeper.kill()
            keeper.communicate()
            end_all_with(TAG, tag)


def _end_of(errors: IO[str]) -> str:
    errors.seek(0)
    return errors.read()[-3000:]


def _join(cluster: Any, cpus: int) -> Any:
    """Start a machine; again when it was not there in the 30 s that Ray gives it, which is short on a busy machine."""
    for attempt in range(_ATTEMPTS):
        try:
            return cluster.add_node(wait=False, num_cpus=cpus, object_store_memory=_STORE_BYTES)
        except Exception:
            if attempt == _ATTEMPTS - 1:
                raise
            traceback.print_exc()
    raise AssertionError


def _kill(node: Any, kind: str) -> None:
    (running,) = node.all_processes[kind]
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait()


def _keep(machines: int, head_cpus: int) -> None:
    """Start the cluster, print its address, then follow orders until stdin ends."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415 - the tests' own process has Ray for something else

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what Ray prints is no answer
    cluster: Any = Cluster()
    _join(cluster, head_cpus)
    nodes = [_join(cluster, 2) for _ in range(machines)]
    answers.write(f"{cluster.address}\n")
    for line in sys.stdin:
        order = line.strip()
        if order == "lose":
            _kill(nodes.pop(0), "raylet")
            nodes.append(_join(cluster, 2))
        elif order == "behead":
            _kill(cluster.head_node, "gcs_server")
        answers.write(f"{order}: done\n")


if __name__ == "__main__":
    _keep(int(sys.argv[1]), int(sys.argv[2]))
