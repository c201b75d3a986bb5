"""Limits of main memory and of shared memory."""

from types import SimpleNamespace

import psutil
import pytest

from resnet_cli.data.loading import memory
from resnet_cli.errors import MachineError
from tests.support.loaders import small_loaders


def test_too_little_shared_memory_is_reported_before_workers_start(monkeypatch):
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda folder: SimpleNamespace(free=16 * 4096))
    assert small_loaders(backend="stream", workers=0)
    with pytest.raises(MachineError, match=r"data\.workers=1: only 64 kB left in /dev/shm; use data\.workers=0"):
        small_loaders(backend="stream", workers=1)


def test_memory_limit_is_that_of_the_control_group_if_it_is_smaller(monkeypatch):
    physical = psutil.virtual_memory().total
    for limits, expected in [([], physical), ([1_000_000, 2**62], 1_000_000), ([2 * physical], physical)]:
        monkeypatch.setattr(memory, "cgroup_limits", lambda limits=limits: limits)
        assert memory.memory_limit() == expected


NO_LIMIT = 9223372036854771712  # of version 1
JOB = "slurm/uid_1000/job_7/step_0/task_0"
SCOPE = "system.slice/slurmstepd.scope/job_7/step_0/user/task_0"


@pytest.mark.parametrize(
    ("groups", "files", "limits"),
    [
        ("", {}, []),
        ("0::/\n", {"memory.max": "300"}, [300]),  # a container of version 2
        ("0::/\n", {"memory.max": "max"}, []),
        (f"0::/{SCOPE}\n", {f"{SCOPE}/memory.max": "max", "system.slice/slurmstepd.scope/job_7/memory.max": "50",
         "system.slice/memory.max": "90"}, [50, 90]),
        ("0::/user.slice/a:b.service", {"user.slice/a:b.service/memory.max": "20"}, [20]),
        ("1:cpu:/x\n0::/y", {"unified/y/memory.max": "8", "unified/x/memory.max": "3", "x/memory.max": "4"}, [8]),
        (f"11:cpuset:/\n4:memory:/{JOB}\n1:name=systemd:/\n0::/\n",
         {f"memory/{JOB}/memory.limit_in_bytes": str(NO_LIMIT), "memory/memory.limit_in_bytes": str(NO_LIMIT),
          "memory/slurm/uid_1000/job_7/memory.limit_in_bytes": "70"}, [70, NO_LIMIT]),
        ("4:cpu,memory:/docker/abc\n", {"memory/memory.limit_in_bytes": "60"}, [60]),  # a container of version 1
        ("0::/../../other\nnonsense\n:\n", {"memory.max": "not a number"}, []),
    ],
)  # fmt: skip
def test_limits_of_control_groups(tmp_path, groups, files, limits):
    """Those of jobs and services are in folders below the mount, and hold for the groups in them."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
    assert sorted(set(memory.cgroup_limits(tmp_path))) == limits
    assert memory.cgroup_limits(tmp_path / "nowhere") == []
