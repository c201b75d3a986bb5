"""glibc's allocator told to keep what is freed: the process that trains frees and asks for the same sizes each step."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of <malloc.h>
NEVER = -1  # as an unsigned number the largest there is


def keep_freed_memory() -> bool:
    """Take no block from the kernel by `mmap`, and give none back; whether the C library knows how.

    By default each tensor of 32 MiB and more, and at first of 128 KiB, is mapped anew, and its pages are zeroed by the
    kernel on their first touch in every step. It is meant to be called before the first tensor, and on other systems
    than Linux with glibc it does nothing.
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):  # musl has a mallopt that does nothing
        return False
    return bool(library.mallopt(M_MMAP_MAX, 0)) and bool(library.mallopt(M_TRIM_THRESHOLD, NEVER))
