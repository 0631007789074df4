"""Finding and ending the processes of one Ray cluster among all others on the machine, by what they inherited."""

import importlib
import time
from typing import Any

import ray  # noqa: F401  puts the psutil that it ships on the path

psutil: Any = importlib.import_module("psutil")


def pids_with(variable: str, value: str) -> list[int]:
    """Live processes of this user whose environment has `variable` set to `value`."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(variable) == value:
                found.append(int(process.pid))
        except psutil.Error:  # gone meanwhile, or another user's
            continue
    return found


def command_of(pid: int) -> list[str]:
    """The command line of a process; empty when it is gone."""
    try:
        return list(psutil.Process(pid).cmdline())
    except psutil.NoSuchProcess:
        return []


def end_all_with(variable: str, value: str, *, seconds: float = 20.0) -> None:
    """Kill those processes, one by one by pid, until none is left.

    Raises:
        RuntimeError: some are still there after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while pids := pids_with(variable, value):
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {pids} are still alive after {seconds:g} s of kill")
        for pid in pids:
            try:
                psutil.Process(pid).kill()
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.1)


def wait_until_none_with(variable: str, value: str, *, seconds: float = 15.0) -> list[int]:
    """The processes that are still there after at most `seconds`; empty is what one hopes for."""
    deadline = time.monotonic() + seconds
    while (pids := pids_with(variable, value)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return pids


def listening(pid: int) -> set[tuple[str, int]]:
    """Addresses and ports on which a process accepts TCP connections."""
    connections = psutil.Process(pid).net_connections(kind="tcp")
    return {(found.laddr.ip, found.laddr.port) for found in connections if found.status == psutil.CONN_LISTEN}


def process_at(port: int) -> int:
    """The process of this user that has a TCP connection from this local port.

    Raises:
        LookupError: nobody has.
    """
    for connection in psutil.net_connections(kind="tcp"):
        if connection.laddr.port == port and connection.pid:
            return int(connection.pid)
    raise LookupError(f"no process has a connection from port {port}")


def listening_addresses(pids: list[int]) -> set[str]:
    """The local addresses on which these processes accept TCP connections."""
    return {address for pid in pids for address, _ in listening(pid)}
