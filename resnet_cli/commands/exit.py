"""Exit a command without the interpreter's last garbage collections, which take most of a second with torch loaded."""

import atexit
import gc
import io
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from resnet_cli.streams import discard_output

WRITERS = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)


def prepare_output() -> None:
    """Print characters that the encoding of the output lacks as escapes, in place of a `UnicodeEncodeError`.

    What is printed to a stream that is closed is discarded.
    """
    _require_unicode_names()
    for name in ("stdout", "stderr"):  # closed, as by `>&-`: Python has no stream then
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  until the process ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _require_unicode_names() -> None:
    """Start Python again in its UTF-8 mode if it takes the names of files and the arguments for ASCII.

    The same names would otherwise be other texts than under another locale, and a run could not be resumed there.
    Python does this itself in the locales C and POSIX, unless it is told not to.
    """
    if sys.getfilesystemencoding() != "ascii" or os.environ.get("PYTHONUTF8") == "1" or not sys.executable:
        return
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def exit_quickly(status: int) -> NoReturn:
    """Exit this process with a status, leaving objects in reference cycles to the operating system.

    Threads are joined, `atexit` handlers run and modules are torn down as usual. Only reference cycles are not
    collected any more; what a file in one of them still buffers is flushed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C while the interpreter ends would print a traceback
    try:
        sys.stdout.flush()
    except OSError:  # the reader is gone, as in `resnet-train | head`; Python flushes once more at its end
        discard_output(sys.stdout)
    atexit.register(_skip_collections)
    sys.exit(status)


def _skip_collections() -> None:
    """Flush open files, since nothing will collect those in cycles, and exclude all objects from collection."""
    for item in gc.get_objects():
        if issubclass(type(item), WRITERS):
            with suppress(OSError, ValueError):
                item.flush()
    gc.disable()
    gc.freeze()
