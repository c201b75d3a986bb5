"""Checks of main, device and shared memory for decoded images and workers."""

import errno
import math
import shutil
from pathlib import Path

import torch
from torch import Tensor

from resnet_cli.data.dataset import Dataset
from resnet_cli.data.selection import unique_splits
from resnet_cli.errors import MachineError

RAM_FRACTION = 0.25  # of main memory that decoded images may take with backend=auto
DEVICE_FRACTION = 0.5  # of a GPU's free memory that decoded images may take with backend=auto
MIN_SHARED_BYTES = 1 << 18  # of /dev/shm, for the locks of two workers and the loader


def fits_in_memory(dataset: Dataset, device: torch.device) -> bool:
    """Return True if the images can be kept decoded, on `device` and in main memory.

    In main memory, each process of the run on this machine has its own, unless they map the same file of the cache.
    """
    splits = unique_splits(dataset)
    needed = sum(split.nbytes for split in splits)
    if device.type == "cuda" and needed > DEVICE_FRACTION * torch.cuda.mem_get_info(device)[0]:
        return False
    if all(isinstance(split.images, Tensor) for split in splits):
        return True
    from resnet_cli.distributed.ranks import ranks_on_machine  # imported late: it loads torch.distributed

    copies = ranks_on_machine()
    needed = sum(split.nbytes * (1 if getattr(split.images, "is_kept", False) else copies) for split in splits)
    return needed <= RAM_FRACTION * memory_limit()


def memory_limit() -> int:
    """Return the size of main memory in bytes, or the memory limit of this process if that is smaller."""
    import psutil  # imported late: only image files under backend=auto need it

    physical: int = psutil.virtual_memory().total
    return min([physical, *cgroup_limits()])


def cgroup_limits(root: Path = Path("/")) -> list[int]:
    """Return the memory limits of the container, the cluster job and the service that this process is in, in bytes.

    Control groups set them, of both versions. Those of a group hold for the groups in it. What cannot be read is left
    out. Version 1 has a number near 2^63 where there is no limit.

    Args:
        root: The folder with `proc` and `sys`.
    """
    mount = root / "sys/fs/cgroup"
    # In a container, the own group is often the root of the mount, whatever `/proc/self/cgroup` calls it.
    files = [mount / "memory.max", mount / "memory/memory.limit_in_bytes"]
    for line in _read(root / "proc/self/cgroup").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if not controllers:  # version 2
            files += [file for top in (mount, mount / "unified") for file in _files_of_group(top, path, "memory.max")]
        elif "memory" in controllers.split(","):
            files += _files_of_group(mount / "memory", path, "memory.limit_in_bytes")
    texts = (_read(file).strip() for file in files)
    return [int(text) for text in texts if text.isdecimal()]  # "max" is no limit


def _files_of_group(mount: Path, path: str, name: str) -> list[Path]:
    """Return the files of this name of a control group and of the groups that it is in."""
    parts = [part for part in path.split("/") if part]
    if ".." in parts:  # outside of what the container sees
        return []
    return [mount.joinpath(*parts[:count], name) for count in range(len(parts) + 1)]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape")
    except (OSError, ValueError):
        return ""


def require_shared_memory(workers: int, folder: str = "/dev/shm") -> None:
    """Raise if there is too little shared memory to start workers; torch would fail with a traceback.

    Raises:
        MachineError: There is too little shared memory.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return  # not Linux: shared memory is elsewhere
    if workers and free < MIN_SHARED_BYTES:
        problem = f"only {free // 1024} kB left in {folder}"
        raise MachineError(errno.ENOSPC, f"data.workers={workers}: {problem}; use data.workers=0")


def share_batches(count: int, shape: tuple[int, ...], folder: str = "/dev/shm") -> Tensor | None:
    """Return shared memory for batches of images that worker processes fill: uint8 [count, *shape].

    Return None if less than twice as much is free, as in many containers, or if the system has no such folder.
    """
    needed = count * math.prod(shape)
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return None
    if 2 * needed > free:
        return None
    # Touch all pages now: if memory ran out at a later first use, the process would be killed.
    batches = torch.empty(count, *shape, dtype=torch.uint8)
    batches.share_memory_()  # type: ignore[no-untyped-call]
    return batches.zero_()
