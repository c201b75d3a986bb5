"""What a process learns of the end of the one that started it."""

import ctypes
import sys

PARENT_DEATH_SIGNAL = 1  # option of prctl, see linux/prctl.h


def signal_at_parent_death(number: int) -> bool:
    """Have this process receive a signal when its parent ends, and return whether the system supports that.

    The signal also arrives when only the thread ends that started this process; `os.getppid` tells which it was.
    """
    if sys.platform != "linux":
        return False
    try:
        return int(ctypes.CDLL(None).prctl(PARENT_DEATH_SIGNAL, number)) == 0
    except (OSError, AttributeError):
        return False
