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
    """Return True if the images can be kept decoded, on `device` and in main memory."""
    splits = unique_splits(dataset)
    needed = sum(split.nbytes for split in splits)
    if device.type == "cuda" and needed > DEVICE_FRACTION * torch.cuda.mem_get_info(device)[0]:
        return False
    return all(isinstance(split.images, Tensor) for split in splits) or needed <= RAM_FRACTION * memory_limit()


def memory_limit() -> int:
    """Return the size of main memory in bytes, or the memory limit of the container if that is smaller."""
    import psutil  # imported late: only image files under backend=auto need it

    physical: int = psutil.virtual_memory().total
    try:
        return min(physical, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no cgroup v2, or no limit ("max")
        return physical


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
