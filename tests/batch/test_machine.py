"""How many cores a process may use."""

import os
from pathlib import Path

import pytest

from rankmill.batch.machine import cores


def files(root: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2 = {"proc/self/cgroup": "0::/slice/job\n"}
V1 = {"proc/self/cgroup": "5:memory:/\n4:cpu,cpuacct:/docker/abc\n"}
CASES: dict[str, tuple[dict[str, str], int]] = {
    "no control groups": ({}, 64),
    "version 2, no quota": (V2 | {"sys/fs/cgroup/slice/job/cpu.max": "max 100000\n"}, 64),
    "version 2": (V2 | {"sys/fs/cgroup/slice/job/cpu.max": "350000 100000\n"}, 3),
    "version 2, the quota is above": (V2 | {"sys/fs/cgroup/slice/cpu.max": "200000 100000\n"}, 2),
    "version 2, in a container": (V2 | {"sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
    "less than a core": (V2 | {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
    "version 1": (
        V1 | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "500000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
        5,
    ),
    "version 1, no quota": (
        V1 | {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"},
        64,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_quotas_count_as_much_as_affinity(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents, expected = CASES[case]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert cores(files(tmp_path, contents)) == expected


def test_affinity_is_the_limit_where_it_is_lower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert cores(files(tmp_path, V2 | {"sys/fs/cgroup/cpu.max": "800000 100000\n"})) == 2
