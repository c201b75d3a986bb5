"""How a command ends: with torch imported, taking the interpreter apart takes half a second and 110 MB."""

import atexit
import gc
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

FILES = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)


def exit_quickly(run: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run a command with the words that were typed, and end this process with its status.

    Threads are waited for, functions that anybody has registered with `atexit` are called, and open files are written
    out, as ever. What Python would do after that, which is to free one thing after the other, is left to the kernel.
    """
    ended: list[int] = []
    atexit.register(_leave, ended)  # the first one registered is the last one called
    status = run(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the interpreter's end would be a traceback
    with suppress(BrokenPipeError):  # whoever read it has seen enough
        sys.stdout.flush()
    ended.append(status)
    sys.exit(status)


def _leave(ended: Sequence[int]) -> None:
    if not ended:  # an error that nobody foresaw, which Python tells
        return
    for thing in gc.get_objects():
        if issubclass(type(thing), FILES):  # a user's class may have some open
            with suppress(OSError, ValueError):
                thing.flush()
    os._exit(ended[0])
