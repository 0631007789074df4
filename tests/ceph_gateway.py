"""The RADOS gateway of Ceph, a real and strongly consistent S3 server, on loopback: one monitor, one OSD, one gateway.

It keeps everything in memory and is told nothing of the machine's own Ceph. Debian's packages:
`apt-get install --no-install-recommends ceph-mon ceph-osd radosgw`.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
ACCESS_KEY, SECRET_KEY = "test", "testsecret"

_CONFIG = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
keyring = {folder}/keyring
run dir = {folder}/run
admin socket = {folder}/run/$name.asok
log file = {folder}/log/$name.log
pid file = {folder}/run/$name.pid
crash dir = {folder}/run
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 1
mon tick interval = 1
paxos propose interval = 0.1
ms bind ipv6 = false
[mon.a]
mon data = {folder}/mon
host = localhost
[osd]
osd objectstore = memstore
osd data = {folder}/osd
memstore device bytes = 1073741824
osd class load list = *
osd class default list = *
[client.rgw.a]
rgw data = {folder}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw dns name = localhost
rgw thread pool size = 64
rgw run sync thread = false
rgw dynamic resharding = false
rgw override bucket index max shards = 1
rgw rados pool pg num min = 8
"""


def missing_programs() -> list[str]:
    """Programs of the packages that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name) is None]


@contextmanager
def running_gateway(folder: Path) -> Iterator[str]:
    """Yield the endpoint URL of an empty gateway; its daemons are ended, by their PIDs, with the block.

    Args:
        folder: an empty folder with a short name, because sockets are made in it.

    Raises:
        RuntimeError: it did not answer within a minute.
        subprocess.CalledProcessError: a program of Ceph failed.
    """
    for name in ("mon", "osd", "log", "run", "rgw"):
        (folder / name).mkdir(parents=True)
    v2, v1, port = (_free_port() for _ in range(3))
    fsid = str(uuid.uuid4())
    config = folder / "ceph.conf"
    config.write_text(_CONFIG.format(folder=folder, fsid=fsid, v2=v2, v1=v1, port=port))
    try:
        _start(folder, fsid, f"[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]")
        endpoint = f"http://127.0.0.1:{port}"
        _wait_until_ready(endpoint)
        user = ["--uid=t", "--display-name=t", f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}"]
        _run(folder, "radosgw-admin", "-n", "client.rgw.a", "user", "create", *user)
        yield endpoint
    finally:
        for file in (folder / "run").glob("*.pid"):
            with suppress(ProcessLookupError, ValueError):
                os.kill(int(file.read_text()), signal.SIGKILL)


def _start(folder: Path, fsid: str, address: str) -> None:
    keyring = str(folder / "keyring")
    everything = {"mon": "allow *", "osd": "allow *", "mgr": "allow *"}
    for number, name in enumerate(("mon.", "client.admin", "client.rgw.a", "osd.0")):
        rights = {"mon": "allow *"} if name == "mon." else everything
        caps = [part for daemon, right in rights.items() for part in ("--cap", daemon, right)]
        create = ["--create-keyring"] if number == 0 else []
        _run(folder, "ceph-authtool", *create, keyring, "--gen-key", "-n", name, *caps)
    monmap = str(folder / "monmap")
    _run(folder, "monmaptool", "--create", "--clobber", "--fsid", fsid, "--addv", "a", address, monmap)
    _run(folder, "ceph-mon", "--mkfs", "-i", "a", "--keyring", keyring, "--monmap", monmap)
    _run(folder, "ceph-mon", "-i", "a")
    osd = str(uuid.uuid4())
    _run(folder, "ceph", "osd", "new", osd)
    _run(folder, "ceph", "osd", "crush", "add", "osd.0", "1", "root=default", "host=localhost")
    _run(folder, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
    _run(folder, "ceph-osd", "-i", "0")
    _run(folder, "radosgw", "-n", "client.rgw.a")


def _run(folder: Path, program: str, *arguments: str) -> None:
    environment = {**os.environ, "CEPH_CONF": str(folder / "ceph.conf")}
    with (folder / "log" / "programs.log").open("ab") as log:
        subprocess.run([program, *arguments], check=True, env=environment, stdout=log, stderr=log, timeout=120)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(endpoint: str) -> None:
    deadline = time.monotonic() + 60
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        try:
            opener.open(endpoint, timeout=5).close()
        except urllib.error.HTTPError:
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"the gateway at {endpoint} did not answer within 60 s")
