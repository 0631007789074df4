"""Joining or starting a cluster, for the length of a `with` block."""

import functools
import logging
import os
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rankmill.cluster.capacity import ClusterInfo, Node, may_grow
from rankmill.cluster.source import SourceTree, driver_source, refuse_stale, source_reader, working_tree_source
from rankmill.errors import RankmillError, UsageError

_log = logging.getLogger("rankmill")

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",  # the progress display is ours
    "RAY_DATA_LOG_LEVEL": "ERROR",  # its INFO lines would tear the progress display
    "RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S": "7200",  # Ray's 1800 ends a job that waits for spot GPUs
}
"""Set while connected, unless the environment has its own value; the workers of a local cluster inherit them."""

_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Makes a local cluster listen on 127.0.0.1 alone, on Linux too."""

_REACH_SECONDS = 5.0
"""Ray itself tries a dead address for more than two minutes."""

_PROBE_SECONDS = 300.0
"""A node may have to unpack the working directory before its first task."""


@contextmanager
def connect(address: str | None = None, *, num_cpus: int | None = None) -> Iterator[ClusterInfo]:
    """Connect this process to Ray for the length of a `with` block.

    Joins `address` ("host:port" or "auto"), else the cluster of RAY_ADDRESS (set inside a submitted job). Without
    either, or with the address "local", starts a quiet cluster on loopback, guarded by a token that only its own
    processes know, and stops it at the end. A connection that the process already has is reused and left open. Ray
    puts its own handler of SIGTERM in the place of the process's: it leaves through `finally` blocks.

    Args:
        address: the cluster to join.
        num_cpus: how many CPUs a local cluster may use, if it comes to one; all of them if not given.

    Raises:
        UsageError: the address cannot be used, or driver and workers would run different copies of rankmill.
        RankmillError: Ray could not be started here.
    """
    target = choose_target(address, os.environ)
    if _connected():
        info = _inspect()
        if address not in {None, "auto", "local", info.address}:
            raise UsageError(f"This process is connected to Ray at {info.address}; it cannot join {address} as well.")
        yield info
        return
    with _environment(_QUIET if target else {**_QUIET, **_local_environment(os.environ)}):
        import ray  # noqa: PLC0415  after the environment is set

        try:
            if target is None:
                _log.info("starting Ray on this machine")
                _start(num_cpus)
            else:
                _log.info("joining the Ray cluster at %s", target)
                _join(target)
            yield _inspect()
        finally:
            ray.shutdown()


def choose_target(address: str | None, environ: Mapping[str, str]) -> str | None:
    """The address to join, or None to start a local cluster.

    Raises:
        UsageError: the address is one that jobs or clients use, not drivers.
    """
    target = address or environ.get("RAY_ADDRESS") or "local"
    if target == "local":
        return None
    if target.startswith(("http://", "https://")):
        raise UsageError(
            f"{target} is the address of the job server, which takes jobs but no drivers. Unset RAY_ADDRESS, or run "
            f"`ray job submit --address {target} --working-dir . --runtime-env jobs/runtime_env.yaml -- ...`."
        )
    if target.startswith("ray://"):
        raise UsageError(f"{target} is a Ray Client address, over which Ray Data does not run. Use `ray job submit`.")
    if target != "auto" and _host_and_port(target) is None:
        raise UsageError(f"{target!r} is not a Ray address: give host:port (6379 by default), auto or local.")
    return target


def _host_and_port(address: str) -> tuple[str, int] | None:
    host, _, port = address.rpartition(":")
    return (host.strip("[]"), int(port)) if host and port.isdecimal() and 0 < int(port) < 65536 else None


@contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Set what is not set yet, and take it away again, together with the RAY_AUTH_MODE that Ray sets itself."""
    added = [name for name in (*defaults, "RAY_AUTH_MODE") if name not in os.environ]
    os.environ.update({**defaults, **os.environ})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@functools.cache
def _token() -> str:
    """A secret for the clusters of this process: Ray reads it once, and without one writes ~/.ray/auth_token."""
    return secrets.token_hex(32)


def _local_environment(environ: Mapping[str, str]) -> dict[str, str]:
    chosen = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    return _LOOPBACK if any(environ.get(name) for name in chosen) else {**_LOOPBACK, "RAY_AUTH_TOKEN": _token()}


def _connected() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def _log_to_driver() -> bool:
    """Off, because Ray copies what workers print to the driver's stdout, which belongs to results."""
    return os.environ.get("RAY_LOG_TO_DRIVER", "0") == "1"


def _start(num_cpus: int | None) -> None:
    import ray  # noqa: PLC0415  after the environment is set

    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=_log_to_driver(),
        )
    except Exception as error:  # Ray's own, where its processes do not come up in time, is of no other class
        raise RankmillError(f"Ray could not be started on this machine: {error}") from error


def _join(address: str) -> None:
    _refuse_unreachable(address)
    import ray  # noqa: PLC0415  after the environment is set

    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=_log_to_driver())
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        if "AuthenticationError" in f"{error!r} {error.__cause__!r}":  # Ray hands on its text only
            raise UsageError(
                f"The Ray cluster at {address} refused this process: its token is missing or wrong. Set RAY_AUTH_MODE="
                "token, with the cluster's token in ~/.ray/auth_token or in the file that RAY_AUTH_TOKEN_PATH names."
            ) from error
        raise UsageError(f"Cannot join the Ray cluster at {address}: {error}") from error


def _refuse_unreachable(address: str) -> None:
    host_and_port = _host_and_port(address)
    if host_and_port is None:
        return
    try:
        socket.create_connection(host_and_port, timeout=_REACH_SECONDS).close()
    except OSError as error:
        raise UsageError(
            f"Nothing answers at the Ray address {address} ({error}). Start the cluster, correct the address "
            "(RAY_ADDRESS or --address), or use `local`."
        ) from error


def _inspect() -> ClusterInfo:
    """Look at the cluster that this process is connected to; refuse it if it would run another copy of rankmill."""
    import ray  # noqa: PLC0415  after the environment is set

    own_node = ray._private.worker._global_node  # noqa: SLF001  nothing public tells who started the cluster
    local = own_node is not None and own_node.is_head()
    alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    driver, workers, working_tree = driver_source(), _worker_sources(alive), working_tree_source()
    if local:  # the same folder is the same code, even while someone edits it
        workers = {node: source for node, source in workers.items() if source.path != driver.path}
    if working_tree is not None and working_tree.path == driver.path:
        working_tree = None
    refuse_stale(driver, workers, working_tree)
    return ClusterInfo(
        address=ray.get_runtime_context().gcs_address,
        local=local,
        elastic=not local and _may_grow(),
        nodes=tuple(
            Node(
                ip=node["NodeManagerAddress"],
                cpus=float(node["Resources"].get("CPU", 0)),
                gpus=float(node["Resources"].get("GPU", 0)),
            )
            for node in alive
        ),
        source=driver,
    )


def _worker_sources(alive: Sequence[Mapping[str, Any]]) -> dict[str, SourceTree]:
    """What each live node would import, by node address."""
    import ray  # noqa: PLC0415  after the environment is set
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: PLC0415

    probe = ray.remote(source_reader())
    refs = {
        # No CPU, so that a busy cluster answers and a head node that offers none is asked too; soft, because a spot
        # node may be gone by now.
        node["NodeManagerAddress"]: probe.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
        ).remote(None)
        for node in alive
    }
    try:
        answers = ray.get(list(refs.values()), timeout=_PROBE_SECONDS)
    except ray.exceptions.GetTimeoutError as error:
        raise UsageError(
            f"Not all of the cluster's nodes ({', '.join(refs)}) ran a task that needs no CPU within "
            f"{_PROBE_SECONDS:g} s; look at `ray status` and at the nodes' runtime_env logs."
        ) from error
    return {node: SourceTree(*answer) for node, answer in zip(refs, answers, strict=True)}


def _may_grow() -> bool:
    import ray  # noqa: PLC0415  after the environment is set
    from ray.experimental.internal_kv import _internal_kv_get  # noqa: PLC0415

    status = _internal_kv_get(ray._private.ray_constants.DEBUG_AUTOSCALING_STATUS)  # noqa: SLF001  nothing public tells
    version = _internal_kv_get("__autoscaler_v2_enabled", namespace="__autoscaler")
    return may_grow(autoscaler_v2=version == b"1", status=status.decode() if status else None)
