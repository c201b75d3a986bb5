"""How processes end: by a signal when their parent ends, and what to call a signal that ended one."""

import ctypes
import signal
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


def signal_name(number: int) -> str:
    """Return the name of a signal, such as `SIGKILL`; `signal 37` for one without a name, as most of real time."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
