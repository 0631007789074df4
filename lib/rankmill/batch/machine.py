"""What this process may use of its machine, and what it has used."""

import os
import platform
import resource
from collections.abc import Iterator
from pathlib import Path


def cores(root: Path = Path("/")) -> int:
    """CPU cores that this process may use: by its affinity, and by the CPU quota of its container, rounded down.

    Args:
        root: where `proc` and `sys` are.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([allowed, *_quotas(root)])))


def cpu_name(root: Path = Path("/")) -> str:
    """What the processor calls itself; empty where the system does not say.

    Args:
        root: where `proc` is.
    """
    lines = _text(root / "proc/cpuinfo").splitlines()
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor()


def peak_bytes() -> int:
    """Peak resident memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory too: on Linux its peak survives fork and exec
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


def _quotas(root: Path) -> Iterator[float]:
    """CPU quotas, in cores, of this process's control group and all above it (version 2, else version 1)."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        tree = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        group = tree / path.strip("/")
        # In a container the path may be the host's, of which only the container's own group is there: the root.
        for folder in (group, *group.parents):
            if not folder.is_relative_to(tree):
                break
            files = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
            match " ".join(_text(folder / name) for name in files).split():
                case [quota, period] if quota not in {"max", "-1"}:
                    yield int(quota) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
