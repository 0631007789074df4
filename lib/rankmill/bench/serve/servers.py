"""Starts servers as processes of their own, and ends them with all that they started."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import urllib3

from rankmill.bench.serve import by_hand
from rankmill.errors import RankmillError
from rankmill.settings.bench_serve import ServeBenchSettings

INFINITY_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0", "DO_NOT_TRACK": "1"}

_START_SECONDS = 300.0
_STOP_SECONDS = 60.0
_HASTE_SECONDS = 1.0
"""To end where the measurement was broken off: nobody waits for what the server has still to answer."""
_POLL_SECONDS = 0.2
_SAID = 2000


@contextmanager
def running(command: Sequence[str], ready: str, log: Path, environment: Mapping[str, str] = {}) -> Iterator[None]:
    """Run a server for the length of a `with` block, from the moment it is ready.

    At the end it may finish what it does, unless an exception is the end; then, or after a minute, it is killed, with
    every process that it started.

    Args:
        command: that starts it.
        ready: URL that answers 200 from then on.
        log: file for what it says.
        environment: added to ours.

    Raises:
        RankmillError: it ended, or was not ready in time; the end of what it said is quoted.
    """
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603 - commands of ours
            list(command), stdout=file, stderr=file, env=os.environ | environment, start_new_session=True
        )
    seconds = _HASTE_SECONDS
    try:
        _wait(process, command, ready, log)
        yield
        seconds = _STOP_SECONDS
    finally:
        _stop(process, seconds)


def free_url() -> str:
    """Of a port of this machine that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def rankmill(config: Path, url: str) -> list[str]:
    """Our own command."""
    port = url.rpartition(":")[2]
    serve = [sys.executable, "-m", "rankmill", "serve", "--address", "local"]
    return [*serve, "--port", port, "--config", str(config)]


def fastapi(folder: Path, url: str, threads: int, max_length: int) -> list[str]:
    """The server that one writes by hand."""
    port = url.rpartition(":")[2]
    return [sys.executable, by_hand.__file__, str(folder), port, str(threads), str(max_length)]


def infinity(settings: ServeBenchSettings, folder: Path, url: str) -> list[str]:
    """Infinity with its defaults, but for what needs the internet, a GPU or packages that are gone.

    Raises:
        RankmillError: it is not installed.
    """
    found = shutil.which(settings.infinity)
    if found is None:
        raise RankmillError(
            f"there is no command {settings.infinity}. Make an environment for it (uv venv infinity; uv pip install "
            "--python infinity 'infinity-emb[server,torch]==0.0.78') and give --infinity infinity/bin/infinity_emb"
        )
    host, port = url.removeprefix("http://").split(":")
    flags = "--engine torch --dtype float32 --no-compile --no-bettertransformer --no-vector-disk-cache"
    flags += " --no-model-warmup"  # with longer texts than some models read; the rounds warm up every side
    address = ["--host", host, "--port", port]
    return [found, "v2", "--model-id", str(folder), "--served-model-name", "model", *address, *flags.split()]


def _wait(process: "subprocess.Popen[bytes]", command: Sequence[str], ready: str, log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    with urllib3.PoolManager(retries=False, timeout=5.0) as pool:
        while True:
            with suppress(urllib3.exceptions.HTTPError):
                if pool.request("GET", ready).status == 200:
                    return
            if process.poll() is not None or time.monotonic() > end:
                what = "ended" if process.poll() is not None else f"was not ready within {_START_SECONDS:g} s"
                said = log.read_bytes()[-_SAID:].decode(errors="replace").strip()
                raise RankmillError(f"`{' '.join(command[:4])} …` {what}: {said}")
            time.sleep(_POLL_SECONDS)


def _stop(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    try:
        if process.poll() is None:
            process.terminate()
            process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:  # also where a second signal says that this takes too long
        process.kill()
        for pid in _session(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def _session(leader: int) -> list[int]:
    """Processes of a session, in whatever group: every worker of Ray has its own. Found on Linux only."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(ProcessLookupError):
            if os.getsid(int(entry.name)) == leader:
                found.append(int(entry.name))
    return found
