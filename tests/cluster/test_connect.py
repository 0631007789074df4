"""Connecting to Ray: the local cluster, the addresses, the stale copies, the impossible requests."""

import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from rankmill import cluster
from rankmill.cluster.capacity import ClusterInfo, Node, may_grow, require_resources
from rankmill.cluster.connection import _refuse_unreachable, choose_target
from rankmill.cluster.source import SourceTree, refuse_stale, source_reader
from rankmill.errors import UsageError
from tests.cluster.processes import wait_until_none_with

LIBRARY = Path(__file__).parents[2] / "lib"
HERE = SourceTree("/here/rankmill", "0.1.0", "a" * 64)


def run_python(script: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def copy_of_library(tmp_path: Path) -> Callable[[str, str], Path]:
    """Makes a folder that holds a copy of the package with another version, for PYTHONPATH."""

    def make(name: str, version: str) -> Path:
        package = tmp_path / name / "rankmill"
        package.mkdir(parents=True)
        for file in ("errors.py", "types.py"):
            shutil.copy(LIBRARY / "rankmill" / file, package)
        (package / "__init__.py").write_text(f'__version__ = "{version}"\n')
        return package.parent

    return make


@pytest.mark.slow
def test_a_local_cluster_is_quiet_private_and_gone_afterwards(tmp_path: Path) -> None:
    marker = uuid.uuid4().hex
    finished = run_python(
        """
        import json, os
        from rankmill import cluster
        with cluster.connect(num_cpus=2) as info:
            import ray
            from tests.cluster.processes import listening_addresses, pids_with
            with cluster.connect() as inner:
                assert inner == info
            assert ray.is_initialized()
            probe = ray.remote(lambda: __import__("rankmill").__path__[0])
            pids = pids_with("TEST_MARKER", os.environ["TEST_MARKER"])
            facts = {"cpus": info.cpus, "local": info.local, "elastic": info.elastic, "path": info.source.path,
                     "worker_path": ray.get(probe.remote()), "listening": sorted(listening_addresses(pids))}
        assert not ray.is_initialized()
        assert "RAY_AUTH_TOKEN" not in os.environ and "RAY_AUTH_MODE" not in os.environ
        print(json.dumps(facts))
        """,
        PYTHONPATH=f"{LIBRARY}{os.pathsep}{LIBRARY.parent}",
        HOME=str(tmp_path),
        TEST_MARKER=marker,
    )
    assert finished.stderr == ""  # a quiet start, and no warning
    assert finished.returncode == 0
    facts = json.loads(finished.stdout)  # nothing but our one line
    listening = {address.removeprefix("::ffff:") for address in facts.pop("listening")}
    assert listening == {"127.0.0.1"}
    package = str(LIBRARY / "rankmill")
    assert facts == {"cpus": 2, "local": True, "elastic": False, "path": package, "worker_path": package}
    assert wait_until_none_with("TEST_MARKER", marker) == []
    assert not (tmp_path / ".ray").exists()


@pytest.mark.usefixtures("local_ray")
def test_a_connection_that_exists_is_reused_and_left_open() -> None:
    import ray  # noqa: PLC0415

    with cluster.connect() as info:
        assert info.local
        assert info.cpus == 3
    assert ray.is_initialized()
    with pytest.raises(UsageError, match=r"connected to Ray at 127.0.0.1:\d+; it cannot join 10.0.0.1:6379"):  # noqa: SIM117
        with cluster.connect("10.0.0.1:6379"):
            pass


@pytest.mark.parametrize(
    ("address", "variable", "expected"),
    [
        (None, None, None),
        (None, "", None),
        ("local", "10.0.0.1:6379", None),
        (None, "10.0.0.1:6379", "10.0.0.1:6379"),
        ("10.0.0.2:6379", "10.0.0.1:6379", "10.0.0.2:6379"),
        ("auto", None, "auto"),
        ("[fd00::1]:6379", None, "[fd00::1]:6379"),
    ],
)
def test_which_cluster_is_joined(address: str | None, variable: str | None, expected: str | None) -> None:
    assert choose_target(address, {} if variable is None else {"RAY_ADDRESS": variable}) == expected


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://127.0.0.1:8265", "ray job submit --address http://127.0.0.1:8265"),
        ("ray://127.0.0.1:10001", "Ray Client"),
        ("head", "give host:port"),
        ("head:99999", "give host:port"),
    ],
)
def test_addresses_that_drivers_cannot_join(address: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        choose_target(None, {"RAY_ADDRESS": address})


def test_a_dead_address_is_refused_in_seconds() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        started = time.monotonic()
        with pytest.raises(UsageError, match=r"Nothing answers at the Ray address 127\.0\.0\.1:"):
            _refuse_unreachable(f"127.0.0.1:{taken.getsockname()[1]}")
        assert time.monotonic() - started < 10


def test_equal_trees_have_equal_sources_wherever_they_lie(copy_of_library: Callable[[str, str], Path]) -> None:
    one, two, old = copy_of_library("one", "1.0"), copy_of_library("two", "1.0"), copy_of_library("old", "0.9")
    cache = two / "rankmill" / "__pycache__"
    cache.mkdir()
    (cache / "errors.cpython-311.pyc").write_bytes(b"not source")
    source, same, stale = (SourceTree(*source_reader()(str(tree / "rankmill"))) for tree in (one, two, old))
    assert source.same_code(same)
    assert source.path != same.path
    assert not source.same_code(stale)
    (two / "rankmill" / "errors.py").write_text("# edited, with the version left as it was\n")
    assert not source.same_code(SourceTree(*source_reader()(str(two / "rankmill"))))


def test_the_reader_works_where_rankmill_is_old_or_missing(copy_of_library: Callable[[str, str], Path]) -> None:
    from ray import cloudpickle  # noqa: PLC0415

    # What Ray does with a task: pickled here, called in a process that has another rankmill, or none.
    pickled: bytes = cloudpickle.dumps(source_reader())  # type: ignore[no-untyped-call]
    called = f"import pickle, sys\nprint(*pickle.loads({pickled!r})(None), sep='|')"
    old = copy_of_library("old", "0.9")
    with_old = run_python(called, PYTHONPATH=str(old)).stdout.strip().split("|")
    assert with_old[:2] == [str(old / "rankmill"), "0.9"]
    hidden = f"import sys\nsys.path[:] = [entry for entry in sys.path if entry != {str(LIBRARY)!r}]\n"
    assert run_python(hidden + called).stdout == "||\n"


def test_a_stale_worker_is_refused_with_both_copies_and_the_fix() -> None:
    old = SourceTree("/image/rankmill", "0.0.9", "b" * 64)
    with pytest.raises(UsageError) as refused:
        refuse_stale(HERE, {"10.0.0.1": HERE, "10.0.0.2": old}, None)
    message = str(refused.value)
    assert "The driver runs rankmill 0.1.0 (source aaaaaaaa) from /here/rankmill" in message
    assert "node 10.0.0.2 would run rankmill 0.0.9 (source bbbbbbbb) from /image/rankmill (1 of 2 nodes" in message
    assert "PYTHONPATH=lib" in message
    assert "wheel" in message
    with pytest.raises(UsageError, match=r"node 10.0.0.2 would run no rankmill at all\."):
        refuse_stale(HERE, {"10.0.0.2": SourceTree("", "", "")}, None)


def test_a_driver_that_runs_an_older_copy_than_its_script_came_with_is_refused() -> None:
    tree = SourceTree("/upload/lib/rankmill", "0.2.0", "c" * 64)
    with pytest.raises(UsageError, match=r"This process runs rankmill 0.1.0 .* came with rankmill 0.2.0 .*PYTHONPATH"):
        refuse_stale(HERE, {}, tree)
    refuse_stale(HERE, {"10.0.0.1": HERE}, SourceTree("/upload/lib/rankmill", HERE.version, HERE.digest))


def test_a_script_beside_another_copy_is_refused(copy_of_library: Callable[[str, str], Path], tmp_path: Path) -> None:
    (tmp_path / "checkout" / "jobs").mkdir(parents=True)
    copy_of_library("checkout/lib", "7.0")
    script = tmp_path / "checkout" / "jobs" / "job.py"
    script.write_text("from rankmill.cluster.source import working_tree_source\nprint(working_tree_source())\n")
    finished = subprocess.run(
        [sys.executable, str(script)],
        env={"PYTHONPATH": str(LIBRARY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert f"from {tmp_path}/checkout/lib/rankmill" in finished.stdout
    assert "rankmill 7.0" in finished.stdout


def info(*nodes: tuple[float, float], local: bool = True, elastic: bool = False) -> ClusterInfo:
    listed = tuple(Node(f"10.0.0.{i}", cpus, gpus) for i, (cpus, gpus) in enumerate(nodes))
    return ClusterInfo("10.0.0.1:6379", local, elastic, listed, HERE)


@pytest.mark.parametrize(
    ("nodes", "workers", "cpus", "gpus"),
    [
        ([(4, 0)], 3, 1, 0),
        ([(2, 0)], 10, 0.1, 0),
        ([(2, 0)], 1, 1, 0),
        ([(8, 2)], 2, 0, 1),
        ([(8, 1)], 4, 0, 0.25),
        ([(8, 0)], 0, 99, 99),  # a pool that may be empty asks for nothing
        ([(0, 0), (8, 1), (8, 1)], 2, 4, 1),
    ],
)
def test_pools_that_fit(nodes: list[tuple[float, float]], workers: int, cpus: float, gpus: float) -> None:
    require_resources(info(*nodes), workers=workers, cpus_per_worker=cpus, gpus_per_worker=gpus)


@pytest.mark.parametrize(
    ("nodes", "workers", "cpus", "gpus", "says"),
    [
        ([(2, 0)], 2, 1, 0, "2 workers with 1 CPU each .* 2 CPUs, of which 1 CPU must stay free.* at most 1 worker,"),
        ([(1, 0)], 1, 1, 0, "1 worker with 1 CPU each .* 1 CPU, .* Ask for less per worker"),
        ([(0, 4)], 1, 0, 1, "0 CPUs, of which 1 CPU must stay free"),
        ([(8, 0)], 1, 0, 1, "1 worker with 1 GPU each .* has 0 GPUs"),
        ([(8, 2), (8, 2)], 1, 0, 4, "has 4 GPUs .* Ask for less per worker"),  # no node has 4
        ([(8, 1)], 5, 0, 0.25, "5 workers with 0.25 GPUs each .* at most 4 workers"),
    ],
)
def test_pools_that_would_wait_for_ever(
    nodes: list[tuple[float, float]], workers: int, cpus: float, gpus: float, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        require_resources(info(*nodes), workers=workers, cpus_per_worker=cpus, gpus_per_worker=gpus)
    require_resources(info(*nodes, elastic=True), workers=workers, cpus_per_worker=cpus, gpus_per_worker=gpus)


def test_the_refusal_names_the_cluster() -> None:
    with pytest.raises(UsageError, match=r"the cluster at 10.0.0.1:6379 \(2 nodes\) has"):
        require_resources(info((1, 0), (1, 0), local=False), workers=9, cpus_per_worker=1, gpus_per_worker=0)


@pytest.mark.parametrize(
    ("v2", "status", "expected"),
    [
        (False, None, True),
        (False, {}, True),
        (False, {"autoscaler_report": {"active_nodes": {"node_7d26": 1}}}, False),
        (False, {"autoscaler_report": {"active_nodes": {}, "idle_nodes": {"node_7d26": 1}}}, False),
        (False, {"autoscaler_report": {"active_nodes": {"head": 1}}}, True),
        (True, {"autoscaler_report": {"active_nodes": {"node_7d26": 1}}}, True),
    ],
)
def test_whether_a_cluster_may_grow(v2: bool, status: dict[str, object] | None, expected: bool) -> None:  # noqa: FBT001
    assert may_grow(autoscaler_v2=v2, status=None if status is None else json.dumps(status)) is expected
