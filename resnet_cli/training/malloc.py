"""Tune glibc's malloc to keep freed memory: training frees and reallocates the same sizes every step."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of <malloc.h>
UNLIMITED = -1  # the largest value of the unsigned type


def keep_freed_memory() -> bool:
    """Disable `mmap` for large blocks and the return of freed memory to the kernel.

    By default each tensor of at least 32 MiB (at first 128 KiB) is mapped anew, and the kernel zeroes its pages at
    their first access in every step. Call this before the first tensor is allocated. It has no effect except on Linux
    with glibc.

    Returns:
        True if the C library has accepted both settings.
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):  # musl's mallopt has no effect
        return False
    return bool(library.mallopt(M_MMAP_MAX, 0)) and bool(library.mallopt(M_TRIM_THRESHOLD, UNLIMITED))
